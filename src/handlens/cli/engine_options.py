"""Options of every command that opens a model: what is kept in memory, on disk, and which settings it runs with.

Boundary: click; the values travel in the context, so that a command needs one decorator and one call:
``@engine_options`` above it, and ``handlens.load(model, **engine_choices())`` inside.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])
KEY = "handlens.engine"


def engine_options(command: Command) -> Command:
    """Add ``--keep``, ``--no-cache``, ``--no-profile`` and ``--no-lookup``."""
    for name, text in reversed(OPTIONS.items()):
        command = click.option(name, is_flag=True, expose_value=False, callback=_remember, help=text)(command)
    return command


OPTIONS = {
    "--keep": "Hold both halves in memory instead of one after the other.",
    "--no-cache": "Keep no visual tokens on disk (also: HANDLENS_NO_CACHE=1).",
    "--no-profile": "Ignore what `handlens tune` found (also: HANDLENS_NO_PROFILE=1).",
    "--no-lookup": "Do not guess text that repeats (also: HANDLENS_NO_LOOKUP=1); the answer is the same, slower.",
}


def engine_choices() -> dict[str, bool]:
    """Return what the user chose, as arguments of ``handlens.load``."""
    context = click.get_current_context(silent=True)
    given = context.meta.get(KEY, {}) if context else {}
    return {
        "keep": given.get("keep", False),
        "cache": not given.get("no_cache", False),
        "profile": not given.get("no_profile", False),
        "lookup": not given.get("no_lookup", False),
    }


def _remember(context: click.Context, option: click.Parameter, value: bool) -> None:
    context.meta.setdefault(KEY, {})[option.name] = value
