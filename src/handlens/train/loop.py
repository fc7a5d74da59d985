"""One loop for every phase: batch, loss, step, checkpoint.

Boundary: a phase of ``phases.py`` and batches of ``feed.py`` in, a trained model out.
"""

import contextlib
import functools
import json
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from handlens.config import HandlensConfig
from handlens.core.durable import show
from handlens.core.tokenizer import Tokenizer
from handlens.errors import HandlensError, TrainingError
from handlens.model import packing
from handlens.model.vlm import HandlensModel
from handlens.train.cells import EYES, CellHead, CellTables
from handlens.train.distributed import ALONE, World, whole
from handlens.train.energy import Meter, Reading
from handlens.train.feed import Batch, batches
from handlens.train.flops import count_step, load_of, step_flops
from handlens.train.learner import Learner, Scores
from handlens.train.pause import OutOfTime, Pause
from handlens.train.phases import Objective, Phase
from handlens.train.source import Draw, draw_generated
from handlens.train.state import Progress, find_state, load_state, put, save_state

Report = Callable[[dict[str, Any]], None]
LOG = "log.jsonl"
BEST = "best.pt"
HEAD = "head.safetensors"
"""File of the throw-away head that phases name cells with, beside the step checkpoints."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Records that are looked at and never learned from, to stop when they get worse."""

    batches: Iterable[Batch]
    """Gone through at every look; a list, or what makes them anew."""
    every: int
    """Steps from one look to the next."""
    patience: int
    """Looks without a new best after which the phase ends; 0: never."""


def summarise(window: list[dict[str, float]]) -> dict[str, float]:
    """Average a window of step scores; exact counts are added up before the division."""
    result: dict[str, float] = {}
    for name in sorted({name for scores in window for name in scores}):
        values = [scores[name] for scores in window if name in scores]
        if name.startswith("exact/"):
            counts = sum(scores.get(name.replace("exact/", "count/"), 0.0) for scores in window)
            result[name] = round(sum(values) / max(counts, 1), 4)
        elif not name.startswith("count/"):
            result[name] = round(sum(values) / len(values), 4)
    return result


def train_phase(
    model: HandlensModel,
    config: HandlensConfig,
    phase: Phase,
    tokenizer: Tokenizer | None,
    folder: Path,
    *,
    seed: int,
    report: Report,
    seconds_between_checkpoints: float = 120.0,
    window: int = 25,
    stop: Callable[[], bool] = lambda: False,
    draw: Draw = draw_generated,
    world: World = ALONE,
    begin: Callable[[], None] = lambda: None,
    held_out: HeldOut | None = None,
    head: Path | None = None,
) -> bool:
    """Train one phase in place; True when it is complete, False when ``stop`` asked to pause.

    ``begin`` is called once, before the first step of a phase that has no checkpoint; ``head`` is the throw-away head
    of an earlier phase with which this one goes on.

    A ``Pause`` as ``stop`` may also give up the step under way.

    Raises:
        TrainingError: the loss is not a number, or a checkpoint cannot be read or written.
        DataError: a record is damaged; a checkpoint of the step before is written first.
    """
    if find_state(folder / "state") is None:
        begin()
    torch.manual_seed(seed)
    learner = Learner(model, config, phase, tokenizer, world)
    if head is not None and learner.head is not None:
        put(learner.head, load_file(str(head)))
    pause = stop if isinstance(stop, Pause) else Pause()
    run = PhaseRun(learner, config, folder, seed, report, window, pause)
    run.load()
    saved = time.monotonic()
    model.train()
    model.llm.set_attn_implementation(attention_of(phase, world))
    try:
        with _stream(phase, config, tokenizer, seed, run.progress.next_indexes, world, draw) as stream:
            run.look(held_out)  # one that was given up
            while run.progress.step < phase.steps and not run.is_stale(held_out):
                try:
                    run.step(_next(stream))
                    run.look(held_out)
                except HandlensError:
                    if world.size == 1 and run.progress.step:
                        run.save()
                    raise
                paused, due = world.agree(stop(), time.monotonic() - saved > seconds_between_checkpoints)
                if paused or due:
                    run.save()
                    saved = time.monotonic()
                if paused:
                    return False
    except OutOfTime:
        if run.saved != run.progress:
            run.save()
        return False
    finally:
        model.llm.set_attn_implementation("sdpa")
    run.save()
    if held_out is not None:
        run.take_best()
    keep_head(learner, folder)
    return True


def head_file(folder: Path, objective: Objective) -> Path:
    """Return the file of the throw-away head that a phase leaves in its folder for one that goes on with it."""
    return folder / EYES if objective == "layout" else folder / "state" / HEAD


def keep_head(learner: Learner, folder: Path) -> None:
    """Write the head that a later phase goes on with; processes that hold shares of it gather them together."""
    if not isinstance(learner.head, CellTables | CellHead):
        return
    gathered = {name: whole(weight.detach()).cpu() for name, weight in learner.head.state_dict().items()}
    if learner.world.is_first:
        file = head_file(folder, learner.phase.objective)
        part = file.with_name(f".{file.name}")
        save_file(gathered, str(part))
        show(part, file)


class PhaseRun:
    """A learner under way: what it has done, what it writes down."""

    def __init__(
        self,
        learner: Learner,
        config: HandlensConfig,
        folder: Path,
        seed: int,
        report: Report,
        window: int,
        pause: Pause,
    ) -> None:
        self.learner, self.config, self.folder, self.seed = learner, config, folder, seed
        self.report, self.window, self.pause = report, window, pause
        self.world, self.phase = learner.world, learner.phase
        self.progress = Progress()
        self.saved: Progress | None = None
        self.scores: list[Scores] = []
        self.meter = Meter(self.world.device)
        self.last = self.meter.read()

    def load(self) -> None:
        """Take up the newest checkpoint, and forget what the log says about steps after it."""
        found = load_state(self.folder / "state", self.learner.modules, self.world)
        if found is None and any((self.folder / "state").glob("step-*")):
            raise TrainingError(
                f"none of the checkpoints in {self.folder / 'state'} can be read; move that folder away to begin "
                f"phase {self.phase.name} again"
            )
        found = found or Progress()
        self.progress = replace(found, sessions=found.sessions + 1)
        if self.world.is_first:
            keep_rows(self.folder / LOG, self.progress.step)
        self.last = self.meter.read()

    def save(self) -> None:
        """Write a checkpoint of now."""
        began = time.monotonic()
        with self.pause.hold():
            save_state(self.folder / "state", self.progress, self.learner.modules, world=self.world)
            self.saved = self.progress
            self.pause.saving_seconds = time.monotonic() - began

    def step(self, mine: Sequence[Batch]) -> None:
        """Learn from the batches of each stream of this process, round after round."""
        before = self.progress
        if not before.counted_share:
            first = mine[: len(mine) // self.phase.local_steps]
            counted = count_step(self.learner, first)
            formula = sum(step_flops(self.config, self.phase, load_of(batch)) for batch in first)
            before = replace(before, counted_share=round(counted / formula, 6) if formula else 1.0)
        if self.phase.dropout_seeded:
            torch.manual_seed(self.seed * 1_000_003 + before.step * self.world.size + self.world.rank)
        scores = self.learner.find_slopes(mine, before.step)
        with self.pause.hold():
            self.learner.move()
            self.progress = self._advance(before, mine)
            self.scores.append(scores)
            if self.progress.step % self.window == 0 or self.progress.step == self.phase.steps:
                self._tell(_row(self.phase, self.progress, self.scores))
                self.scores = []

    def look(self, held_out: HeldOut | None) -> None:
        """Look at the held-out records when it is time, once a step, and keep the weights that did best."""
        progress, step = self.progress, self.progress.step
        if held_out is None or step == progress.looked_step or (step % held_out.every and step != self.phase.steps):
            return
        loss = self.learner.measure(held_out.batches)
        with self.pause.hold():
            if progress.best_loss is None or loss < progress.best_loss:
                if self.world.is_first:
                    self._keep_best()
                self.progress = replace(progress, looked_step=step, best_loss=loss, best_step=step, stale=0)
            else:
                self.progress = replace(progress, looked_step=step, stale=progress.stale + 1)
            self._tell({"phase": self.phase.name, "step": step, "of": self.phase.steps, "held_out": round(loss, 4)})

    def is_stale(self, held_out: HeldOut | None) -> bool:
        """True when the held-out records have not got better for too long."""
        return held_out is not None and 0 < held_out.patience <= self.progress.stale

    def take_best(self) -> None:
        """Put the weights that did best on held-out records into the model."""
        file = self.folder / "state" / BEST
        if not self.progress.best_step or not file.exists():
            return
        stored = torch.load(file, weights_only=True, map_location="cpu")
        with torch.no_grad():
            for name, weight in self.learner.objective.named_parameters():
                if name in stored:
                    weight.copy_(stored[name])

    def _keep_best(self) -> None:
        learning = {
            name: weight.detach() for name, weight in self.learner.objective.named_parameters() if weight.requires_grad
        }
        file = self.folder / "state" / BEST
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_name(f".{BEST}")
            torch.save(learning, part)
            show(part, file)
        except (OSError, RuntimeError) as cause:
            raise TrainingError(
                f"cannot write {file}: {str(cause).splitlines()[0]}; free some space and run the same command again"
            ) from None

    def _tell(self, row: dict[str, Any]) -> None:
        if self.world.is_first:
            _write_row(self.folder / LOG, row)
            self.report(row)

    def _advance(self, before: Progress, mine: Sequence[Batch]) -> Progress:
        now, last = self.meter.read(), self.last
        self.last = now
        return advance(before, self.phase, self.config, self.world, mine, now, last)


def advance(
    before: Progress,
    phase: Phase,
    config: HandlensConfig,
    world: World,
    mine: Sequence[Batch],
    now: Reading,
    last: Reading,
) -> Progress:
    """Return where the run stands after a step of all processes."""
    last_round = mine[-(len(mine) // phase.local_steps) :]
    seen = [batch.slices for batch in mine if batch.slices is not None]
    places = sum(slices.position_ids.numel() for slices in seen)
    real = sum(slices.position_ids.numel() if slices.is_real is None else int(slices.is_real.sum()) for slices in seen)
    counts = (
        sum(len(batch.lengths) for batch in mine),
        sum(len(slices.patches) for slices in seen),
        real,
        places - real,
        sum(sum(batch.lengths) for batch in mine) if phase.talks else 0,
        sum(batch.num_targets for batch in mine),
        sum(step_flops(config, phase, load_of(batch)) for batch in mine),
        now.processor_seconds - last.processor_seconds,
        now.joules - last.joules,
    )
    pictures, slices, patches, padded, tokens, targets, flops, processor, joules = world.add_all(
        list(map(float, counts))
    )
    return replace(
        before,
        step=before.step + 1,
        next_indexes=tuple(world.interleave([batch.next_index for batch in last_round])),
        pictures=before.pictures + int(pictures),
        slices=before.slices + int(slices),
        patches=before.patches + int(patches),
        padded=before.padded + int(padded),
        tokens=before.tokens + int(tokens),
        targets=before.targets + int(targets),
        flops=before.flops + flops,
        seconds=round(before.seconds + now.seconds - last.seconds, 3),
        device_seconds=round(before.device_seconds + world.size * (now.seconds - last.seconds), 3),
        processor_seconds=round(before.processor_seconds + processor, 3),
        joules=round(before.joules + joules, 3),
    )


def attention_of(phase: Phase, world: World) -> str:
    """Return the name under which transformers knows the attention of a phase.

    Raises:
        TrainingError: the kernel needs a GPU.
    """
    if phase.attention == "segments":
        return packing.NAME
    from handlens.train import varlen

    if world.device.type != "cuda":
        raise TrainingError(
            f"phase {phase.name}: attention 'flash' needs a GPU, this run is on the {world.device.type}; "
            f"use --set {phase.name}.attention=segments"
        )
    return varlen.NAME


class _Records(torch.utils.data.IterableDataset[Any]):
    """Batches of some streams, made in a process of their own while the model computes.

    An error travels as an item, because a DataLoader would wrap its one line in a traceback. Items travel as bytes:
    tensors would need shared memory, and where that is full a DataLoader waits for ever.
    """

    def __init__(
        self,
        phase: Phase,
        config: HandlensConfig,
        tokenizer: Tokenizer | None,
        seed: int,
        starts: dict[int, int],
        draw: Draw,
    ) -> None:
        self.phase, self.config, self.tokenizer = phase, config, tokenizer
        self.seed, self.starts, self.draw = seed, starts, draw

    def __iter__(self) -> Iterator[bytes]:
        streams = [
            batches(self.phase, self.config, self.tokenizer, seed=self.seed, start=start, draw=self.draw)
            for start in self.starts.values()
        ]
        try:
            while True:
                rounds = range(self.phase.local_steps)
                yield pickle.dumps([next(stream) for _ in rounds for stream in streams])
        except HandlensError as error:
            yield pickle.dumps(error)


def _serve_the_run(worker: int, *, ended: Connection, end: Connection) -> None:
    """Live as long as the run reads batches, and no longer.

    A signal for the whole process group must not take the batches away before the checkpoint is written. A process
    whose run was killed, or has failed, would wait for ever for somebody to read its last batch.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    run = os.getppid()
    end.close()  # the copy of this process; the last one is the run's

    def follow() -> None:
        while os.getppid() == run and not ended.poll(0.5):
            pass
        os._exit(0)

    threading.Thread(target=follow, daemon=True).start()


@contextlib.contextmanager
def _stream(
    phase: Phase,
    config: HandlensConfig,
    tokenizer: Tokenizer | None,
    seed: int,
    next_indexes: Sequence[int],
    world: World,
    draw: Draw,
) -> Iterator[Iterator[bytes]]:
    """Give batches made by another process, which ends with the block."""
    if next_indexes and len(next_indexes) != phase.streams:
        raise TrainingError(
            f"phase {phase.name}: its checkpoint has {len(next_indexes)} streams, {phase.streams} are asked for; "
            f"use --set {phase.name}.streams={len(next_indexes)}"
        )
    starts = {stream: next_indexes[stream] if next_indexes else stream for stream in world.streams(phase)}
    ended, end = multiprocessing.Pipe(duplex=False)
    with ended, end:
        # Batches are made on the CPU also where new tensors are made on a GPU; the worker inherits that.
        with torch.device("cpu"):
            made = iter(
                torch.utils.data.DataLoader(
                    _Records(phase, config, tokenizer, seed, starts, draw),
                    batch_size=None,
                    num_workers=1,
                    prefetch_factor=3,
                    worker_init_fn=functools.partial(_serve_the_run, ended=ended, end=end),
                    generator=torch.Generator(),
                )
            )
        yield made


def _next(stream: Iterator[bytes]) -> list[Batch]:
    try:
        item: list[Batch] | HandlensError = pickle.loads(next(stream))
    except RuntimeError as cause:
        if "DataLoader worker" not in str(cause):
            raise
        raise TrainingError(
            f"the process that makes batches has died ({str(cause).splitlines()[0]}); "
            "memory may have run out; the same command goes on from the last checkpoint"
        ) from None
    if isinstance(item, HandlensError):
        raise item
    return item


def _row(phase: Phase, progress: Progress, scores: list[dict[str, float]]) -> dict[str, Any]:
    return {
        "phase": phase.name,
        "step": progress.step,
        "of": phase.steps,
        "pictures": progress.pictures,
        "slices": progress.slices,
        "seconds": round(progress.seconds, 1),
    } | summarise(scores)


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a log; a line that was cut by a kill is left out."""
    rows = []
    if file.is_file():
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue
    return rows


def keep_rows(file: Path, step: int) -> None:
    """Drop the rows of steps that will be done again."""
    rows = read_rows(file)
    kept = [row for row in rows if row.get("step", 0) <= step]
    if len(kept) < len(rows) or (rows and not file.read_bytes().endswith(b"\n")):
        part = file.with_name(f".{file.name}")
        part.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        part.replace(file)


def _write_row(file: Path, row: dict[str, Any]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
    except OSError as cause:
        raise TrainingError(
            f"cannot write {file}: {cause.strerror or cause}; free some space and run the same command again"
        ) from None
