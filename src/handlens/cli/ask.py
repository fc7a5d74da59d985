"""``handlens ask``: pictures and a question in, the answer out, token by token."""

import json
import sys
import time
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from handlens.cli.decoding_options import decoding_options
from handlens.cli.engine_options import engine_choices, engine_options
from handlens.core.images import MAX_PIXELS

if TYPE_CHECKING:
    from handlens.answerer import Answerer, Seen, Token
    from handlens.core.images import Picture
    from handlens.core.sight import Sight

PICTURE_ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".pdf"}


@click.command()
@click.argument("words", metavar='IMAGE... "QUESTION"', nargs=-1)
@click.option(
    "--model", default="nano", show_default=True, help="nano, or the folder of a bundle, torch model or GGUF pair."
)
@click.option("--max-slices", type=click.IntRange(min=1), help="Most slices of a picture.  [default: the model's]")
@decoding_options
@click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    default=MAX_PIXELS,
    show_default=True,
    help="Largest picture that is opened.",
)
@click.option("--frames", type=click.IntRange(min=1), help="So many frames of a GIF, video or folder, spread evenly.")
@click.option(
    "--fps", type=float, default=1.0, show_default=True, help="Frames a second of a folder, or without times."
)
@click.option(
    "--pack", type=click.IntRange(1, 6), help="Frames in one block of visual tokens (4.5).  [default: the model's, 3]"
)
@click.option("--show", is_flag=True, help="Say what the model saw, on stderr.")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), help="Write what it saw as a picture.")
@click.option("--check", "is_checked", is_flag=True, help="Judge every claim of the answer on the picture.")
@click.option("--drop", is_flag=True, help="With --check: leave out what was judged wrong.")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
@engine_options
def ask(
    words: tuple[str, ...],
    model: str,
    max_slices: int | None,
    max_pixels: int,
    frames: int | None,
    fps: float,
    pack: int | None,
    show: bool,
    picture: Path | None,
    is_checked: bool,
    drop: bool,
    as_json: bool,
    **choices: Any,
) -> None:
    """Answer a question about pictures.

    \b
    handlens ask examples/receipt.png "What is the total?"
    handlens ask page.pdf#2 "What is the first line?" --show
    cat photo.jpg | handlens ask - "How many circles are there?"
    handlens ask clip.gif "What moves?" --frames 8
    handlens ask examples/shapes.png "Describe the picture." --check

    IMAGE is a file, a page of a PDF (page.pdf#2), or - for standard input. The question comes last.
    """  # noqa: D301
    if drop and not is_checked:
        raise click.UsageError("--drop leaves out what --check finds; give both")
    sources, question = split_words(words)
    begin = time.perf_counter()
    import handlens
    from handlens.cli.decoding_options import Decoded
    from handlens.core.chat import ask as ask_once
    from handlens.core.sampling import why_ended

    Decoded.of("nano", **choices)  # an impossible setting is found before anything is opened
    pictures = [opened for source in sources for opened in _open_all(source, max_pixels, frames, fps)]
    answerer: Answerer = handlens.load(model, **engine_choices())
    decoded = Decoded.of(answerer.info.family, **choices)
    opened = time.perf_counter()
    if pack is not None:
        _set_pack(answerer, pack)
    # A frame is seen whole, as one slice, unless more are asked for.
    seen = answerer.see(pictures, max_slices=1 if frames and max_slices is None else max_slices)
    shown = _first_of_each(pictures, seen)
    sights = _look(shown, seen, answerer) if show or as_json else []
    if answerer.info.notice:
        click.echo(f"{answerer.info.name}: {answerer.info.notice}", err=True)
    if show:
        _show(sights)
        if answerer.info.settings:
            click.echo(f"settings of `handlens tune`: {answerer.info.settings}", err=True)
    if picture:
        _draw(shown, seen, picture)
    tokens, first_word = [], 0.0
    for token in answerer.answer(ask_once(question, len(seen.pictures)), seen, decoded.sampling):
        first_word = first_word or time.perf_counter() - begin
        tokens.append(token)
        if not as_json and not drop:
            click.echo(printable(decoded.text_of(token)), nl=False)
            sys.stdout.flush()
    timings = {"open": opened - begin, **seen.seconds, "first_word": first_word, "total": time.perf_counter() - begin}
    ended = why_ended([token.id for token in tokens], decoded.sampling)
    said = decoded.whole(tokens)
    report = _report(answerer, seen, sights, tokens, timings) if as_json else {}
    report |= {"answer": said, "ended": ended, "decoding": decoded.to_json()} if as_json else {}
    if not as_json and not drop:
        click.echo("")
    if is_checked:
        report |= _check(answerer, seen, question, said, drop=drop, as_json=as_json)
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False))
    if ended != "stop":
        why = "the answer repeated itself" if ended == "loop" else "--max-tokens allows more"
        click.echo(f"ended after {len(tokens)} tokens: {why}", err=True)


def split_words(words: Sequence[str]) -> tuple[list[str], str]:
    """Return the pictures and the question.

    Raises:
        click.UsageError: one of them is missing, or the question is not in quotes.
    """
    example = 'for example: handlens ask receipt.png "What is the total?"'
    if not words:
        raise click.UsageError(f"a picture and a question are missing; {example}")
    *sources, question = words
    if _is_picture(question):
        raise click.UsageError(f"the question is missing after '{question}'; {example}")
    if not sources:
        raise click.UsageError(f"a picture is missing before '{question}'; {example}")
    if not question.strip():
        raise click.UsageError(f"the question is empty; {example}")
    first_word = next((place for place, source in enumerate(sources) if place and not _is_picture(source)), None)
    if first_word is not None:
        raise click.UsageError(
            f"'{sources[first_word]}' is not a file; put the question in quotes: \"{' '.join(words[first_word:])}\""
        )
    if sources.count("-") > 1:
        raise click.UsageError("- stands for standard input, which holds one picture; it was given twice")
    return sources, question


def _is_picture(word: str) -> bool:
    """True for a word that can only be meant as a picture."""
    from handlens.core.pages import split_page

    path, page = split_page(word)
    return word == "-" or page is not None or path.suffix.lower() in PICTURE_ENDINGS or _exists(path)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a question longer than a file name may be, or with a null byte
        return False


def printable(text: str) -> str:
    """Keep an answer from steering a terminal: control characters become U+FFFD."""
    if not sys.stdout.isatty():
        return text
    return "".join("\ufffd" if unicodedata.category(char) == "Cc" and char not in "\n\t" else char for char in text)


def _open(source: str, max_pixels: int) -> "Picture":
    from handlens.core.images import open_picture
    from handlens.core.pages import open_any

    if source != "-":
        return open_any(source, max_pixels=max_pixels)
    if sys.stdin.isatty():
        raise click.UsageError("- reads a picture from standard input, which is a terminal; pipe a file into it")
    return open_picture(sys.stdin.buffer, name="standard input", max_pixels=max_pixels)


def _open_all(source: str, max_pixels: int, frames: int | None, fps: float) -> "list[Picture]":
    """Return one picture, or the frames that were asked for."""
    from handlens.core.frames import is_moving, open_frames
    from handlens.errors import ImageError

    if source != "-" and frames is not None and is_moving(source):
        return open_frames(source, frames, max_pixels=max_pixels, frames_per_second=fps)
    if source != "-" and Path(source).suffix.lower() not in PICTURE_ENDINGS and is_moving(source):
        what = "folder" if Path(source).is_dir() else "video"
        raise ImageError(f"{source} is a {what}; give one picture file, or see frames of it, for example --frames 8")
    return [_open(source, max_pixels)]


def _set_pack(answerer: "Answerer", pack: int) -> None:
    """Choose how many frames share one block of visual tokens."""
    from handlens.errors import SettingError

    lens = getattr(answerer, "answerer", answerer)
    if not hasattr(lens, "frames_per_group"):
        raise SettingError(
            f"{answerer.info.name} (family {answerer.info.family}, {answerer.info.engine}) gives every frame its own "
            "visual tokens; leave out --pack; torch models of 4.5 pack frames"
        )
    lens.frames_per_group = pack


def _first_of_each(pictures: "Sequence[Picture]", seen: "Seen") -> "list[Picture]":
    """Return the picture that stands for each entry of ``seen``: of a group of frames the first."""
    places = [0]
    for entry in seen.pictures:
        places.append(places[-1] + max(1, len(entry.times)))
    return [pictures[place] for place in places[:-1]]


def _look(pictures: "Sequence[Picture]", seen: "Seen", answerer: "Answerer") -> "list[Sight]":
    from handlens.core.sight import look_at

    pairs = zip(pictures, seen.plans, strict=True)
    return [look_at(picture, plan, answerer.info.num_queries) for picture, plan in pairs]


def _show(sights: "Sequence[Sight]") -> None:
    from handlens.cli.seen import describe_sight

    for sight in sights:
        click.echo(describe_sight(sight), err=True)


def _draw(pictures: "Sequence[Picture]", seen: "Seen", file: Path) -> None:
    """Write one drawing per picture; several are numbered: seen-1.png, seen-2.png."""
    from handlens.cli.seen import save_drawing

    for number, (picture, plan) in enumerate(zip(pictures, seen.plans, strict=True), start=1):
        target = file if len(pictures) == 1 else file.with_stem(f"{file.stem}-{number}")
        save_drawing(picture.image, plan, target)
        click.echo(f"wrote {target}", err=True)


def _check(
    answerer: "Answerer", seen: "Seen", question: str, answer: str, *, drop: bool, as_json: bool
) -> dict[str, Any]:
    """Judge the claims of an answer; print them, or return them for the report."""
    from handlens.align.check import check, checked_to_json, describe
    from handlens.engine.answerer import Lens

    lens = getattr(answerer, "answerer", answerer)
    is_held = isinstance(lens, Lens) and not lens.keep
    if isinstance(lens, Lens):
        lens.keep = True  # vision is released by now; language stays for all claims
    try:
        checked = check(answerer, seen, question, answer)
    finally:
        if is_held and isinstance(lens, Lens):
            lens.close()
            lens.keep = False
    if drop and not as_json:
        click.echo(printable(checked.kept))
    if not as_json:
        for line in describe(checked, num_pictures=len(seen.pictures)):
            click.echo(printable(line))
    click.echo(f"checked {len(checked.judgements)} claims in {checked.seconds:.2f} s", err=True)
    told = checked_to_json(checked)
    return {"answer": checked.kept, "said": answer} | told if drop else told


def _report(
    answerer: "Answerer",
    seen: "Seen",
    sights: "Sequence[Sight]",
    tokens: "Sequence[Token]",
    timings: dict[str, float],
) -> dict[str, Any]:
    from handlens.core.sight import sight_to_json

    groups = [{"name": entry.name, "seconds": list(entry.times)} for entry in seen.pictures if entry.times]
    return {
        "answer": "",
        "ended": "",
        "model": answerer.info.name,
        "settings": answerer.info.settings,
        "images": [sight_to_json(sight) for sight in sights],
        "tokens": [{"text": token.text, "id": token.id, "logprob": round(token.logprob, 6)} for token in tokens],
        "timings": {station: round(seconds, 4) for station, seconds in timings.items()},
    } | ({"frames": groups} if groups else {})
