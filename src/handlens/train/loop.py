"""One loop for every phase: batch, loss, step, checkpoint.

Boundary: a phase of ``phases.py`` and batches of ``feed.py`` in, a trained model out.
"""

import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from handlens.config import HandlensConfig
from handlens.core.tokenizer import Tokenizer
from handlens.errors import TrainingError
from handlens.model import packing
from handlens.model.vlm import HandlensModel
from handlens.train.cells import EYES, CellHead, CellTables
from handlens.train.feed import IGNORED, Batch, batches
from handlens.train.optim import build_optimisers
from handlens.train.phases import Phase
from handlens.train.reading import ReadingHead
from handlens.train.state import Progress, load_state, save_state
from handlens.train.warmstart import place_codes

Report = Callable[[dict[str, Any]], None]
PARTS = {"vision": "vpm", "resampler": "resampler", "language": "llm"}


def freeze(model: HandlensModel, phase: Phase) -> list[tuple[str, nn.Parameter]]:
    """Let only the parts of the phase learn; return their parameters."""
    learning = []
    for part, attribute in PARTS.items():
        for name, weight in getattr(model, attribute).named_parameters():
            weight.requires_grad_(part in phase.trains and name != "pos_embed")
            if weight.requires_grad:
                learning.append((f"{attribute}.{name}", weight))
    return learning


def has_bfloat16_units(capabilities: Mapping[str, bool | int | str]) -> bool:
    """True where the processor multiplies bfloat16 in hardware; elsewhere it is a hundred times slower."""
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def arithmetic() -> AbstractContextManager[Any]:
    """Return bfloat16 autocast where it helps, plain float32 elsewhere."""
    if has_bfloat16_units(torch.cpu.get_capabilities()):
        return torch.autocast("cpu", torch.bfloat16)
    return nullcontext()


def reading_loss(model: HandlensModel, head: ReadingHead, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """Loss of naming what each patch shows."""
    assert batch.slices is not None and batch.labels is not None
    seen = model.vpm(batch.slices.patches, batch.slices.position_ids, batch.slices.is_real)
    real = batch.labels[..., 0] >= 0
    places = place_codes(batch.slices, model.vpm.config.table_side, round(model.resampler.config.num_queries**0.5))
    return head(seen[real], batch.labels[real], places[real])


def token_loss(model: HandlensModel, batch: Batch, visual: Tensor | None = None) -> tuple[Tensor, dict[str, float]]:
    """Mean next-token loss over the targets, and how many whole answers were right.

    ``visual`` are the visual tokens when they are known already; else the slices are seen here. An answer counts as
    exact when every token is the most likely one given the right beginning; greedy decoding then yields the same
    answer.
    """
    if visual is None and batch.slices is not None:
        visual = model.see(batch.slices)
    embeddings = model.join(batch.ids[None], None if visual is None else batch.is_visual[None], visual)
    hidden = model.llm.model(
        inputs_embeds=embeddings,
        position_ids=batch.positions[None],
        use_cache=False,
        segment_lengths=batch.lengths,
    ).last_hidden_state[0]
    # The first token of a conversation is never a target, so the shift does not cross a border.
    is_target = batch.targets[1:] != IGNORED
    logits = model.llm.lm_head(hidden[:-1][is_target])
    targets = batch.targets[1:][is_target]
    loss = F.cross_entropy(logits.float(), targets)
    hit = logits.detach().argmax(-1) == targets
    scores = {"tokens": float(hit.float().mean())}
    owners = batch.tasks[1:][is_target]
    answered = owners >= 0
    wrong = torch.zeros(len(batch.task_names)).index_add(0, owners[answered], (~hit[answered]).float())
    for name, misses in zip(batch.task_names, wrong.tolist(), strict=True):
        scores[f"exact/{name}"] = scores.get(f"exact/{name}", 0.0) + float(misses == 0)
        scores[f"count/{name}"] = scores.get(f"count/{name}", 0.0) + 1
    return loss, scores


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


class Learner:
    """A model with what one phase adds to it: optimisers, and for ``reading`` the throw-away head."""

    def __init__(
        self, model: HandlensModel, config: HandlensConfig, phase: Phase, tokenizer: Tokenizer | None = None
    ) -> None:
        self.model = model
        self.phase = phase
        self.head: ReadingHead | CellHead | CellTables | None = None
        if phase.objective == "reading":
            self.head = ReadingHead(config.vision.width)
        elif phase.objective == "cells" or phase.cells_weight > 0:
            self.head = CellHead(config.resampler.width)
        elif phase.objective == "layout" and tokenizer is not None:
            self.head = CellTables(config.resampler.width)
            self.head.initialise(model.llm.get_input_embeddings().weight, tokenizer)
        named = freeze(model, phase) + (list(self.head.named_parameters()) if self.head else [])
        self.weights = [weight for _, weight in named]
        self.optimisers = build_optimisers(named, phase)

    @property
    def modules(self) -> dict[str, Any]:
        """Everything that a checkpoint holds."""
        return {"model": self.model} | self.optimisers | ({"head": self.head} if self.head else {})

    def learn(self, batch: Batch, step: int) -> dict[str, float]:
        """Take one step and return its scores; nothing moves when the loss or its slope is not a number.

        Raises:
            TrainingError: the loss, or the size of its gradient, is not finite.
        """
        rate = self.phase.rate_at(step)
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = rate
        with arithmetic():
            loss, score = self.loss(batch)
        self._check("loss", float(loss.detach()), step, batch)
        for weight in self.weights:
            weight.grad = None
        loss.backward()
        norm = float(nn.utils.clip_grad_norm_(self.weights, 1.0))
        self._check("gradient", norm, step, batch)
        for optimiser in self.optimisers.values():
            optimiser.step()
        return {"loss": float(loss.detach()), "norm": norm} | score

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of the phase's objective and its scores."""
        if isinstance(self.head, ReadingHead):
            return reading_loss(self.model, self.head, batch)
        if isinstance(self.head, CellTables):
            assert batch.labels is not None
            return token_loss(self.model, batch, self.head(batch.labels))
        if not isinstance(self.head, CellHead):
            return token_loss(self.model, batch)
        assert batch.slices is not None and batch.labels is not None
        visual = self.model.see(batch.slices)
        named, scores = self.head(visual, batch.labels)
        if self.phase.objective == "cells":
            return named, scores
        answered, more = token_loss(self.model, batch, visual)
        return answered + self.phase.cells_weight * named, scores | more | {"answers": float(answered.detach())}

    def _check(self, what: str, value: float, step: int, batch: Batch) -> None:
        if not math.isfinite(value):
            raise TrainingError(
                f"phase {self.phase.name}: the {what} of step {step} is {value} "
                f"(the {len(batch.lengths)} records before {batch.next_index}); "
                f"lower {self.phase.name}.rate (it is {self.phase.rate:g}) and run again"
            )


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
) -> bool:
    """Train one phase in place; True when it is complete, False when ``stop`` asked to pause.

    Raises:
        TrainingError: the loss is not a number, or a checkpoint cannot be read or written.
    """
    torch.manual_seed(seed)
    learner = Learner(model, config, phase, tokenizer)
    progress = load_state(folder / "state", learner.modules) or Progress()
    stream = _stream(phase, config, tokenizer, seed, progress.next_index)
    saved = started = time.monotonic()
    scores: list[dict[str, float]] = []
    model.train()
    model.llm.set_attn_implementation(packing.NAME)
    try:
        while progress.step < phase.steps:
            batch = next(stream)
            scores.append(learner.learn(batch, progress.step))
            now = time.monotonic()
            progress, started = _advance(progress, batch, now - started), now
            if progress.step % window == 0 or progress.step == phase.steps:
                row = _row(phase, progress, scores)
                _write_row(folder / "log.jsonl", row)
                report(row)
                scores = []
            paused = stop()
            if paused or now - saved > seconds_between_checkpoints:
                save_state(folder / "state", progress, learner.modules)
                saved = now
            if paused:
                return False
    finally:
        model.llm.set_attn_implementation("sdpa")
    save_state(folder / "state", progress, learner.modules)
    if isinstance(learner.head, CellTables):
        save_file(learner.head.state_dict(), str(folder / EYES))
    return True


class _Records(torch.utils.data.IterableDataset[Batch]):
    """Batches made in a process of their own while the model computes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs

    def __iter__(self) -> Iterator[Batch]:
        return batches(*self.args, **self.kwargs)


def _leave_signals_to_the_run(worker: int) -> None:
    """A signal for the whole process group must not take the batches away before the checkpoint is written."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _stream(
    phase: Phase, config: HandlensConfig, tokenizer: Tokenizer | None, seed: int, start: int
) -> Iterator[Batch]:
    return iter(
        torch.utils.data.DataLoader(
            _Records(phase, config, tokenizer, seed=seed, start=start),
            batch_size=None,
            num_workers=1,
            prefetch_factor=3,
            worker_init_fn=_leave_signals_to_the_run,
        )
    )


def _advance(progress: Progress, batch: Batch, seconds: float) -> Progress:
    return Progress(
        step=progress.step + 1,
        next_index=batch.next_index,
        pictures=progress.pictures + len(batch.lengths),
        slices=progress.slices + (len(batch.slices.patches) if batch.slices else 0),
        tokens=progress.tokens + int((batch.targets != IGNORED).sum()),
        seconds=round(progress.seconds + seconds, 3),
    )


def _row(phase: Phase, progress: Progress, scores: list[dict[str, float]]) -> dict[str, Any]:
    return {
        "phase": phase.name,
        "step": progress.step,
        "of": phase.steps,
        "pictures": progress.pictures,
        "slices": progress.slices,
        "seconds": round(progress.seconds, 1),
    } | summarise(scores)


def _write_row(file: Path, row: dict[str, Any]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
    except OSError as cause:
        raise TrainingError(f"cannot write {file}: {cause.strerror or cause}") from None
