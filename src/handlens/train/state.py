"""Step checkpoints: everything a run needs to go on as if it had never stopped.

Boundary: one folder per step, written beside and renamed, so that a kill leaves the last whole one. One process
writes ``state.pt``; processes that hold shares (FSDP2) write ``shards/`` together. Either number of processes reads
both.
"""

import json
import pickle
import shutil
import zipfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor, distribute_tensor

from handlens.core.durable import settle, show
from handlens.errors import TrainingError
from handlens.train.distributed import ALONE, World

DAMAGE = (
    OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError, pickle.UnpicklingError, CheckpointException,
    zipfile.BadZipFile,
)  # fmt: skip
"""What reading a file that was cut or overwritten raises."""
PLAIN, SHARES = "state.pt", "shards"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a phase stands, and what it has cost so far."""

    step: int = 0
    next_indexes: tuple[int, ...] = ()
    """The record with which the next batch of each stream begins; empty before the first."""
    pictures: int = 0
    slices: int = 0
    patches: int = 0
    padded: int = 0
    """Places for patches that hold padding."""
    tokens: int = 0
    """Places of packed rows: words and visual tokens."""
    targets: int = 0
    """Tokens that were predicted."""
    flops: float = 0.0
    """By formula, all processes together."""
    counted_share: float = 0.0
    """What torch counted in one step, divided by the formula; 0 where nothing was counted."""
    seconds: float = 0.0
    device_seconds: float = 0.0
    """Seconds times the processes that worked then."""
    processor_seconds: float = 0.0
    joules: float = 0.0
    sessions: int = 0
    """Times that the run was started."""
    looked_step: int = 0
    """Last step after which held-out records were looked at."""
    best_loss: float | None = None
    """Lowest loss on held-out records, where they are looked at."""
    best_step: int = 0
    stale: int = 0
    """Looks at held-out records since the best one."""


def read_progress(step: Path) -> Progress:
    """Return where a checkpoint stands; raises one of ``DAMAGE``."""
    stored = json.loads((step / "progress.json").read_text(encoding="utf-8"))
    if not isinstance(stored, dict):
        raise ValueError("not an object")
    if "next_index" in stored:
        stored["next_indexes"] = [stored.pop("next_index")]
    unknown = stored.keys() - {field.name for field in fields(Progress)}
    if unknown:
        raise ValueError(f"unknown {sorted(unknown)}")
    return Progress(**stored | {"next_indexes": tuple(stored["next_indexes"])})


def save_state(folder: Path, progress: Progress, modules: dict[str, Any], keep: int = 2, world: World = ALONE) -> None:
    """Write ``folder/step-N`` atomically and drop all but it and the ``keep - 1`` before it.

    What lies after it could not be read, or the run would have gone on from there.

    Raises:
        TrainingError: the folder cannot be written.
    """
    part = folder / f".part-{progress.step}"
    try:
        if world.is_first:
            folder.mkdir(parents=True, exist_ok=True)
            for leftover in folder.glob(".part-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            part.mkdir()
        if world.mode == "fsdp":
            world.wait()
            save(flatten(modules), checkpoint_id=part / SHARES)
        elif world.is_first:
            with (part / PLAIN).open("wb") as file:
                torch.save({name: module.state_dict() for name, module in modules.items()}, file)
        if world.is_first:
            (part / "progress.json").write_text(json.dumps(asdict(progress)), encoding="utf-8")
            for path in part.rglob("*"):
                settle(path)
            target = folder / f"step-{progress.step:08d}"
            if target.exists():
                shutil.rmtree(target)
            show(part, target)
            steps = sorted(folder.glob("step-*"))
            before = steps[: steps.index(target)]
            for other in before[: max(len(before) - keep + 1, 0)] + steps[len(before) + 1 :]:
                shutil.rmtree(other, ignore_errors=True)
    except (OSError, RuntimeError, CheckpointException) as cause:  # torch reports a full disk as RuntimeError
        shutil.rmtree(part, ignore_errors=True)
        reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause).splitlines()[0]
        raise TrainingError(
            f"cannot write the checkpoint of step {progress.step} to {folder}: {reason}; "
            "free some space and run the same command again"
        ) from None
    world.wait()


def find_state(folder: Path) -> Path | None:
    """Return the newest whole checkpoint, None when there is none."""
    for step in sorted(folder.glob("step-*"), reverse=True):
        try:
            read_progress(step)
            if (step / PLAIN).exists():
                torch.load(step / PLAIN, weights_only=True, map_location="cpu", mmap=True)
            else:
                FileSystemReader(step / SHARES).read_metadata()
        except DAMAGE:
            continue
        return step
    return None


def load_state(folder: Path, modules: dict[str, Any], world: World = ALONE) -> Progress | None:
    """Load the newest whole checkpoint into the modules; None when there is none.

    A damaged checkpoint is passed over: the one before it is used.

    Raises:
        TrainingError: the newest whole checkpoint was written by a run of another shape.
    """
    for step in sorted(folder.glob("step-*"), reverse=True):
        try:
            progress = read_progress(step)
            stored = read_plain(step) if (step / PLAIN).exists() else read_shares(step / SHARES, modules, world)
        except DAMAGE:
            continue
        try:
            for name, module in modules.items():
                put(module, stored[name])
        except (KeyError, ValueError, RuntimeError, IndexError):
            raise TrainingError(
                f"the checkpoint {step} does not fit this model and phase; "
                "use the settings that it was made with, or another folder"
            ) from None
        return progress
    return None


def read_plain(step: Path) -> dict[str, Any]:
    """Return the state of every module; optimisers as name -> number of weight -> tensors; raises one of ``DAMAGE``."""
    with zipfile.ZipFile(step / PLAIN) as file:
        if damaged := file.testzip():
            raise ValueError(f"{damaged} is damaged")
    stored = torch.load(step / PLAIN, weights_only=True, map_location="cpu")
    return {name: state["state"] if "param_groups" in state else state for name, state in stored.items()}


def flatten(modules: dict[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of all modules under names that do not depend on the number of processes."""
    flat: dict[str, Tensor] = {}
    for name, module in modules.items():
        state = module.state_dict()
        if isinstance(module, torch.optim.Optimizer):
            state = {f"{number}/{key}": value for number, one in state["state"].items() for key, value in one.items()}
        flat |= {f"{name}/{key}": value for key, value in state.items()}
    return flat


def read_shares(folder: Path, modules: dict[str, Any], world: World) -> dict[str, Any]:
    """Return the state of every module from ``shards/``; each process reads no more than its own part."""
    wanted: dict[str, Any] = {}
    described: dict[str, Any] = FileSystemReader(folder).read_metadata().state_dict_metadata
    for key, facts in described.items():
        name, _, rest = key.partition("/")
        if name not in modules:
            continue
        module = modules[name]
        if isinstance(module, torch.optim.Optimizer):
            like = _weights(module)[int(rest.partition("/")[0])]
        else:
            like = module.state_dict()[rest]
        if isinstance(like, DTensor) and like.shape == facts.size:
            wanted[key] = torch.zeros_like(like)
        else:
            wanted[key] = torch.zeros(facts.size, dtype=facts.properties.dtype)
    load(wanted, checkpoint_id=folder, no_dist=world.mode != "fsdp")
    stored: dict[str, Any] = {name: {} for name in modules}
    for key, value in wanted.items():
        name, _, rest = key.partition("/")
        if isinstance(modules[name], torch.optim.Optimizer):
            number, _, rest = rest.partition("/")
            stored[name].setdefault(int(number), {})[rest] = value
        else:
            stored[name][rest] = value
    return stored


def put(module: Any, state: dict[Any, Any]) -> None:
    """Copy a state into a module or an optimiser, cutting it into shares where the module has shares."""
    if isinstance(module, torch.optim.Optimizer):
        weights = _weights(module)
        if state.keys() and max(state) >= len(weights):
            raise ValueError(f"{max(state) + 1} weights are stored, {len(weights)} learn")
        placed = {
            number: {key: _like(value, weights[number]) for key, value in one.items()} for number, one in state.items()
        }
        for number, one in placed.items():
            for value in one.values():
                if value.ndim and value.shape != weights[number].shape:
                    raise ValueError(f"{list(value.shape)} is stored, {list(weights[number].shape)} learns")
        module.load_state_dict({"state": placed, "param_groups": module.state_dict()["param_groups"]})
    else:
        own = module.state_dict()
        module.load_state_dict({key: _like(value, own[key]) for key, value in state.items()})


def _weights(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    """The weights in the order of their numbers."""
    return [weight for group in optimiser.param_groups for weight in group["params"]]


def _like(value: Tensor, other: Tensor) -> Tensor:
    if isinstance(other, DTensor) and not isinstance(value, DTensor) and value.shape == other.shape:
        moved = value.to(other.to_local().device)
        return distribute_tensor(moved, other.device_mesh, other.placements, src_data_rank=None)
    return value
