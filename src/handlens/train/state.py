"""Step checkpoints: everything a run needs to go on as if it had never stopped.

Boundary: one folder per step, written beside and renamed, so that a kill leaves the last whole one.
"""

import contextlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from handlens.errors import TrainingError


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
    """Write ``folder/step-N`` atomically and drop all but the newest ``keep``."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".part-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    part = folder / f".part-{os.getpid()}"
    part.mkdir()
    try:
        torch.save({name: module.state_dict() for name, module in modules.items()}, part / "state.pt")
        (part / "progress.json").write_text(json.dumps(asdict(progress)))
        target = folder / f"step-{progress.step:08d}"
        if target.exists():
            shutil.rmtree(target)
        part.rename(target)
    except OSError as cause:
        shutil.rmtree(part, ignore_errors=True)
        raise TrainingError(
            f"cannot write the checkpoint of step {progress.step} to {folder}: {cause.strerror or cause}; "
            "free some space and run the same command again"
        ) from None
    for old in sorted(folder.glob("step-*"))[:-keep]:
        shutil.rmtree(old, ignore_errors=True)


def load_state(folder: Path, modules: dict[str, Any]) -> Progress | None:
    """Load the newest whole checkpoint into the modules; None when there is none."""
    for step in sorted(folder.glob("step-*"), reverse=True):
        with contextlib.suppress(OSError, ValueError, RuntimeError, EOFError):
            progress = Progress(**json.loads((step / "progress.json").read_text()))
            stored = torch.load(step / "state.pt", weights_only=True, map_location="cpu")
            for name, module in modules.items():
                module.load_state_dict(stored[name])
            return progress
    return None
