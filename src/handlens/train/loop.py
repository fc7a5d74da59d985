"""One loop for every phase: batch, loss, step, checkpoint.

Boundary: a phase of ``phases.py`` and batches of ``feed.py`` in, a trained model out.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handlens.config import HandlensConfig
from handlens.core.tokenizer import Tokenizer
from handlens.errors import TrainingError
from handlens.model import packing
from handlens.model.vlm import HandlensModel
from handlens.train.feed import IGNORED, Batch, batches
from handlens.train.optim import build_optimisers
from handlens.train.phases import Phase
from handlens.train.reading import ReadingHead
from handlens.train.state import Progress, load_state, save_state

Report = Callable[[dict[str, Any]], None]
PARTS = {"vision": "vpm", "resampler": "resampler", "language": "llm"}


class _Stream(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    """Batches made in a process of their own while the model computes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs

    def __iter__(self) -> Iterator[Batch]:
        return batches(*self.args, **self.kwargs)


def freeze(model: HandlensModel, phase: Phase) -> list[tuple[str, nn.Parameter]]:
    """Let only the parts of the phase learn; return their parameters."""
    learning = []
    for part, attribute in PARTS.items():
        for name, weight in getattr(model, attribute).named_parameters():
            weight.requires_grad_(part in phase.trains and name != "pos_embed")
            if weight.requires_grad:
                learning.append((f"{attribute}.{name}", weight))
    return learning


def reading_loss(model: HandlensModel, head: ReadingHead, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """Loss of naming what each patch shows."""
    assert batch.slices is not None and batch.labels is not None
    seen = model.vpm(batch.slices.patches, batch.slices.position_ids, batch.slices.is_real)
    real = batch.labels[..., 0] >= 0
    return head(seen[real], batch.labels[real])


def token_loss(model: HandlensModel, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """Mean next-token loss over the targets, and how many whole answers were right.

    An answer counts as exact when every token is the most likely one given the right beginning; greedy
    decoding then yields the same answer.
    """
    visual = None if batch.slices is None else model.see(batch.slices)
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
    loss = F.cross_entropy(logits, targets)
    hit = logits.detach().argmax(-1) == targets
    scores = {"tokens": float(hit.float().mean())}
    owners = batch.tasks[1:][is_target]
    answered = owners >= 0
    wrong = torch.zeros(len(batch.task_names)).index_add(0, owners[answered], (~hit[answered]).float())
    for name, misses in zip(batch.task_names, wrong.tolist(), strict=True):
        scores[f"exact/{name}"] = scores.get(f"exact/{name}", 0.0) + float(misses == 0)
        scores[f"count/{name}"] = scores.get(f"count/{name}", 0.0) + 1
    return loss, scores


def _summary(window: list[dict[str, float]]) -> dict[str, float]:
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
) -> bool:
    """Train one phase in place; True when it is complete, False when ``stop`` asked to pause.

    Raises:
        TrainingError: the loss is not a number, or a checkpoint cannot be written.
    """
    torch.manual_seed(seed)
    model.llm.set_attn_implementation(packing.NAME)
    learning = freeze(model, phase)
    head = ReadingHead(config.vision.width) if phase.objective == "reading" else None
    weights = [weight for _, weight in learning] + (list(head.parameters()) if head else [])
    optimisers = build_optimisers([*learning, *(head.named_parameters() if head else [])], phase)
    modules: dict[str, Any] = {"model": model} | optimisers | ({"head": head} if head else {})
    progress = load_state(folder / "state", modules) or Progress()
    stream = torch.utils.data.DataLoader(
        _Stream(phase, config, tokenizer, seed=seed, start=progress.next_index),
        batch_size=None,
        num_workers=1,
        prefetch_factor=3,
    )
    saved, started, scores = time.monotonic(), time.monotonic(), []
    model.train()
    with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
        for batch in stream:
            if progress.step >= phase.steps:
                break
            for optimiser in optimisers.values():
                for group in optimiser.param_groups:
                    group["lr"] = phase.rate_at(progress.step)
            loss, score = reading_loss(model, head, batch) if head else token_loss(model, batch)
            if not math.isfinite(float(loss.detach())):
                raise TrainingError(
                    f"phase {phase.name}: the loss of step {progress.step} is {float(loss.detach())}; "
                    f"records {progress.next_index} to {batch.next_index}; lower rate ({phase.rate}) and run again"
                )
            for weight in weights:
                weight.grad = None
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(weights, 1.0)
            for optimiser in optimisers.values():
                optimiser.step()
            now = time.monotonic()
            progress = replace(
                progress,
                step=progress.step + 1,
                next_index=batch.next_index,
                pictures=progress.pictures + len(batch.lengths),
                slices=progress.slices + (len(batch.slices.patches) if batch.slices else 0),
                tokens=progress.tokens + int((batch.targets != IGNORED).sum()),
                seconds=round(progress.seconds + now - started, 3),
            )
            started = now
            scores.append({"loss": float(loss.detach()), "norm": float(norm)} | score)
            if progress.step % window == 0 or progress.step == phase.steps:
                row = {"phase": phase.name, "step": progress.step, "of": phase.steps, "pictures": progress.pictures,
                       "slices": progress.slices, "seconds": round(progress.seconds, 1)} | _summary(scores)  # fmt: skip
                log.write(json.dumps(row) + "\n")
                log.flush()
                report(row)
                scores = []
            paused = stop()
            if paused or now - saved > seconds_between_checkpoints:
                save_state(folder / "state", progress, modules)
                saved = now
            if paused:
                return False
    save_state(folder / "state", progress, modules)
    model.llm.set_attn_implementation("sdpa")
    return True
