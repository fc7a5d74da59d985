"""Step checkpoints: everything a run needs to go on as if it had never stopped.

Boundary: one folder per step, written beside and renamed, so that a kill leaves the last whole one.
"""

import json
import os
import pickle
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from handlens.errors import TrainingError

DAMAGE = (OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError, pickle.UnpicklingError)
"""What reading a file that was cut or overwritten raises."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a phase stands."""

    step: int = 0
    next_index: int = 0
    """The record with which the next batch begins."""
    pictures: int = 0
    slices: int = 0
    tokens: int = 0
    seconds: float = 0.0


def save_state(folder: Path, progress: Progress, modules: dict[str, Any], keep: int = 2) -> None:
    """Write ``folder/step-N`` atomically and drop all but the newest ``keep``.

    Raises:
        TrainingError: the folder cannot be written.
    """
    part = folder / f".part-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".part-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        part.mkdir()
        torch.save({name: module.state_dict() for name, module in modules.items()}, part / "state.pt")
        (part / "progress.json").write_text(json.dumps(asdict(progress)), encoding="utf-8")
        target = folder / f"step-{progress.step:08d}"
        if target.exists():
            shutil.rmtree(target)
        part.rename(target)
    except (OSError, RuntimeError) as cause:  # torch reports a full disk as RuntimeError
        shutil.rmtree(part, ignore_errors=True)
        reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause).splitlines()[0]
        raise TrainingError(
            f"cannot write the checkpoint of step {progress.step} to {folder}: {reason}; "
            "free some space and run the same command again"
        ) from None
    for old in sorted(folder.glob("step-*"))[:-keep]:
        shutil.rmtree(old, ignore_errors=True)


def load_state(folder: Path, modules: dict[str, Any]) -> Progress | None:
    """Load the newest whole checkpoint into the modules; None when there is none.

    A damaged checkpoint is passed over: the one before it is used.

    Raises:
        TrainingError: the newest whole checkpoint was written by a run of another shape.
    """
    for step in sorted(folder.glob("step-*"), reverse=True):
        try:
            progress = Progress(**json.loads((step / "progress.json").read_text(encoding="utf-8")))
            stored = torch.load(step / "state.pt", weights_only=True, map_location="cpu")
        except DAMAGE:
            continue
        try:
            for name, module in modules.items():
                module.load_state_dict(stored[name])
        except (KeyError, ValueError, RuntimeError):
            raise TrainingError(
                f"the checkpoint {step} does not fit this model and phase; "
                "use the settings that it was made with, or another folder"
            ) from None
        return progress
    return None
