"""``handlens chat``: a conversation about pictures; each picture is encoded once."""

import contextlib
import importlib
import sys
from typing import TYPE_CHECKING, Any

import click

from handlens.cli.engine_options import engine_choices, engine_options

if TYPE_CHECKING:
    from handlens.asking import Conversation

HELP = (
    "/image FILE shows a picture, /save FILE keeps what was said (.md or .json), /show tells what was seen, /quit ends"
)


@click.command()
@click.argument("images", metavar="[IMAGE]...", nargs=-1)
@click.option("--model", default="nano", show_default=True, help="nano, or the folder of a bundle or torch model.")
@click.option("--max-slices", type=click.IntRange(min=1), help="Most slices of a picture.  [default: the model's]")
@click.option("--max-tokens", type=int, default=256, show_default=True, help="Longest answer.")
@click.option("--temperature", type=float, default=0.0, show_default=True, help="0 is greedy, higher is wilder.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same answers.")
@engine_options
def chat(images: tuple[str, ...], model: str, max_slices: int | None, **choices: Any) -> None:
    """Talk about pictures, turn by turn.

    \b
    handlens chat examples/receipt.png
    printf 'What is the total?\\nAnd the date?\\n' | handlens chat examples/receipt.png

    /image FILE shows another picture, /save FILE keeps what was said, /show tells what the model saw,
    /quit or Ctrl-D ends. Ctrl-C stops an answer.
    """  # noqa: D301
    import handlens
    from handlens.core.sampling import Sampling

    sampling = Sampling(**choices)
    opened = handlens.load(model, **{**engine_choices(), "keep": True})
    conversation = opened.chat(max_slices=max_slices)
    conversation.sampling = sampling
    for image in images:
        _show_picture(conversation, image)
    if opened.info.notice:
        click.echo(f"{opened.info.name}: {opened.info.notice}", err=True)
    if sys.stdin.isatty():
        click.echo(HELP, err=True)
    while (line := _read()) is not None:
        if line.startswith("/"):
            if not _obey(conversation, line):
                return
        elif line:
            _answer(conversation, line)


def _read() -> str | None:
    """Return the next line; None at the end."""
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):
            importlib.import_module("readline")  # arrow keys and history
        try:
            return input("> ").strip()
        except EOFError:
            click.echo("")
            return None
    line = sys.stdin.readline()
    return line.strip() if line else None


def _answer(conversation: "Conversation", question: str) -> None:
    """Say the answer as it comes; Ctrl-C stops it and the question counts as not asked."""
    from handlens.cli.ask import printable
    from handlens.errors import HandlensError

    try:
        for text in conversation.stream(question):
            click.echo(printable(text), nl=False)
            sys.stdout.flush()
        click.echo("")
    except KeyboardInterrupt:
        click.echo("")
        click.echo("stopped", err=True)
    except HandlensError as error:
        if not sys.stdin.isatty():
            raise
        click.echo(str(error), err=True)


def _obey(conversation: "Conversation", line: str) -> bool:
    """Do what a line with a stroke says; False ends the conversation."""
    from handlens.errors import HandlensError, did_you_mean

    word, _, rest = line.partition(" ")
    rest = rest.strip()
    try:
        if word in ("/quit", "/exit"):
            return False
        if word == "/image" and rest:
            _show_picture(conversation, rest)
        elif word == "/save" and rest:
            conversation.save(rest)
            click.echo(f"wrote {rest}", err=True)
        elif word == "/show":
            _say_seen(conversation)
        elif word in ("/image", "/save"):
            click.echo(
                f"{word} needs a file, for example: {word} {'photo.jpg' if word == '/image' else 'talk.md'}", err=True
            )
        elif word == "/help":
            click.echo(HELP, err=True)
        else:
            known = ("/image", "/save", "/show", "/help", "/quit")
            click.echo(f"unknown command '{word}'{did_you_mean(word, known)}", err=True)
    except HandlensError as error:
        if not sys.stdin.isatty():
            raise
        click.echo(str(error), err=True)
    return True


def _show_picture(conversation: "Conversation", image: str) -> None:
    """Encode a picture and warn where its text is too small to read."""
    from handlens.asking import as_picture
    from handlens.core.sight import look_at

    picture = as_picture(image)
    (seen,) = conversation.show(picture).pictures
    sight = look_at(picture, seen.plan, conversation.model.info.num_queries)
    click.echo(f"{picture.name}: {sight.visual_tokens} visual tokens", err=True)
    if sight.warning:
        click.echo(f"  warning: {sight.warning}\n  what helps: {sight.advice}", err=True)


def _say_seen(conversation: "Conversation") -> None:
    from handlens.cli.seen import describe

    for shown in conversation.seen.pictures:
        click.echo(describe(shown.name, shown.plan, conversation.model.info.num_queries), err=True)
