"""Every error a user can cause, with one line that says what was given, what is needed, what to do.

HandlensError
├── ImageError      a picture that cannot be read, is too large, or has no pixels
├── ModelError      an unknown, damaged or unfit model folder
├── SettingError    an option or configuration value that cannot work
├── DataError       a damaged or misshapen record, shard or manifest
├── TrainingError   a run that cannot start, resume or go on
└── NeedsExtra      an optional dependency that is not installed
"""

import difflib
from collections.abc import Iterable
from pathlib import Path


class HandlensError(Exception):
    """Base class; the command line prints ``str(error)`` on one line and exits with 1."""


class ImageError(HandlensError):
    """A picture that cannot be read, is too large, or has no pixels."""


class ModelError(HandlensError):
    """An unknown, damaged or unfit model folder."""


class SettingError(HandlensError):
    """An option or configuration value that cannot work."""


class DataError(HandlensError):
    """A damaged or misshapen record, shard or manifest."""


class TrainingError(HandlensError):
    """A run that cannot start, resume or go on."""


class NeedsExtra(HandlensError):
    """An optional dependency is missing; the message names the extra that brings it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the extra '{extra}': pip install 'handlens[{extra}]'")
        self.what, self.extra = what, extra

    def __reduce__(self) -> tuple[type["NeedsExtra"], tuple[str, str]]:
        """Travel whole from a worker process to the caller."""
        return NeedsExtra, (self.what, self.extra)


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return `` ; did you mean 'x'?`` for a near miss, else the list of valid names.

    >>> did_you_mean("num_query", ["num_queries", "width"])
    "; did you mean 'num_queries'?"
    """
    names = sorted(known)
    close = difflib.get_close_matches(given, names, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(names)}"


def no_config(folder: Path) -> ModelError:
    """Return the error of a folder that is no model; a run folder is told which of its folders is one."""
    inside = sorted(str(file.parent) for file in folder.glob("*/config.json"))
    hint = f"; did you mean {inside[-1]}?" if inside else ""
    return ModelError(f"no config.json in {folder}; give a folder with config.json and model.safetensors{hint}")
