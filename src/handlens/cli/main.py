"""The entry point: finds the command, and turns every failure into one line and an exit code.

Boundary: imports click and nothing else, so that ``--help`` answers at once. Exit codes: 0 done, 1 the user
can fix it, 2 wrong usage, 130 interrupted.
"""

import difflib
import errno
import importlib
import os
import sys
from collections.abc import Sequence

import click

from handlens import __version__
from handlens.errors import HandlensError

COMMANDS = {
    "ask": "Answer a question about pictures.",
    "chat": "Talk about pictures, turn by turn.",
    "serve": "Serve a model over HTTP, with a page to ask it.",
    "batch": "Ask one question about every picture of a folder.",
    "fields": "Read the fields of a JSON schema, with evidence.",
    "slices": "Show how a picture is divided into slices.",
    "generate": "Write generated pictures with questions and answers.",
    "data": "Check, clean, convert and pack data sets.",
    "train": "Train a model by a recipe.",
    "align": "Teach a model to make less up, by feedback on its claims.",
    "export": "Make a bundle that runs without torch.",
    "npu": "Write the vision half for a neural processor.",
    "verify": "Compare a model with another, or with a reference, stage by stage.",
    "models": "List, show, fetch, remove and make models.",
    "eval": "Measure how often a model is right.",
    "plan": "Say what an answer needs before anything is loaded.",
    "tune": "Find the settings that suit this machine.",
    "bench": "Measure how fast a model runs here.",
    "report": "Measure how a model holds up over minutes.",
    "doctor": "Look at this machine, this installation and a model.",
}
"""Name of a command (and of its file) -> its line in ``handlens --help``."""
FILES = {"eval": "evaluate"}
"""Files that cannot have the name of their command: ``eval`` is a word of Python."""


class LazyGroup(click.Group):
    """Imports the file of a command when the command runs."""

    running = ""
    """Name of the command that runs, for messages."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of a picture's way."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        LazyGroup.running = cmd_name
        name = FILES.get(cmd_name, cmd_name)
        return getattr(importlib.import_module(f"handlens.cli.{name}"), name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a near miss is guessed."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(COMMANDS)}"
            raise click.UsageError(f"unknown command '{args[0]}'; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="handlens", message="%(prog)s %(version)s")
def handlens() -> None:
    """Ask a picture.

    \b
    handlens ask examples/receipt.png "What is the total?"

    Everything runs on this machine. `handlens COMMAND --help` opens with an example.
    """  # noqa: D301  \b is click's mark for lines that keep their form


NO_MEMORY = (
    "there is too little memory; close other programs, or take a smaller model; `handlens plan` says what is needed"
)


def run(args: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    LazyGroup.running = ""
    debug = os.environ.get("HANDLENS_DEBUG") == "1"
    try:
        code = handlens.main(list(args), prog_name="handlens", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (click.Abort, KeyboardInterrupt):
        return 130
    except (BrokenPipeError, SystemExit):  # click turns a closed pipe into SystemExit
        _leave_pipe()
        return 0
    except click.exceptions.NoArgsIsHelpError as usage:
        click.echo(usage.format_message(), err=True)
        return 2
    except click.ClickException as usage:
        return _complain(_usage_line(usage), 2)
    except HandlensError as error:
        if debug:
            raise
        return _complain(str(error), 1)
    except MemoryError:
        if debug:
            raise
        return _complain(NO_MEMORY, 1)
    except OSError as error:
        if debug:
            raise
        if error.errno == errno.ENOMEM:
            return _complain(NO_MEMORY, 1)
        return _complain(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", 1)
    except Exception as error:
        if debug:
            raise
        return _complain(
            f"unexpected {type(error).__name__}: {error}; this is a defect of handlens; "
            "run it again with HANDLENS_DEBUG=1 and report what it prints",
            1,
        )


LOCAL = frozenset({"ask", "chat", "fields", "slices"})
"""Commands that never need another machine; every address but loopback is refused to them."""


def main() -> None:
    """Run the command line of this process."""
    if len(sys.argv) > 1 and sys.argv[1] in LOCAL:
        from handlens.measure.network import seal

        seal()
    sys.exit(run(sys.argv[1:]))


def _complain(message: str, code: int) -> int:
    name = f"handlens {LazyGroup.running}".strip()
    click.echo(f"{name}: {' '.join(message.split())}", err=True)
    return code


def _usage_line(usage: click.ClickException) -> str:
    """Return one line that ends with where to read more."""
    message = usage.format_message().rstrip(".")
    if isinstance(usage, click.NoSuchOption):
        known = [name for param in usage.ctx.command.params for name in param.opts] if usage.ctx else []
        near = difflib.get_close_matches(usage.option_name, known, n=1, cutoff=0.5)
        message = f"unknown option '{usage.option_name}'" + (f"; did you mean '{near[0]}'?" if near else "")
    message = message[:1].lower() + message[1:]
    return f"{message} (see: handlens {LazyGroup.running + ' ' if LazyGroup.running else ''}--help)"


def _leave_pipe() -> None:
    """Keep Python from complaining once more when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
