"""``handlens data``: look at data sets, put them right, and bring them into the form that training reads.

Boundary: one file per command, imported when it runs.
"""

import importlib

import click

COMMANDS = {
    "check": "Name what is wrong with a data set.",
    "show": "Show a sample as training sees it.",
    "price": "Tell what training on a data set costs.",
    "convert": "Write a data set in another format.",
    "clean": "Leave out what does no good.",
    "rewrite": "Turn raw captions into questions and answers.",
    "pack": "Fill rows of fixed length.",
    "mixtures": "List the paper's data, and what stands for it here.",
}
"""Name of a command (and of its file) -> its line in ``handlens data --help``."""


class DataGroup(click.Group):
    """Imports the file of a command when the command runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of their use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        return getattr(importlib.import_module(f"handlens.cli.data.{cmd_name}"), cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a near miss is guessed."""
        from handlens.errors import did_you_mean

        if args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"unknown command '{args[0]}'{did_you_mean(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=DataGroup)
def data() -> None:
    """Look at data sets and put them right.

    \b
    handlens data check shards/receipts
    handlens data convert shards/receipts --to llava --out receipts-llava

    A data set is a folder of shards, LLaVA-style JSON, the fine-tuning JSON of MiniCPM-V, parquet, or pictures
    with captions. Needs the extra 'data'.
    """  # noqa: D301
