"""One step of learning: the loss of a phase's objective, and what moves the weights.

Boundary: batches of ``feed.py`` in, scores out. ``loop.py`` decides when; ``distributed.py`` on how many processes.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from handlens.config import HandlensConfig
from handlens.core.tokenizer import Tokenizer
from handlens.errors import TrainingError
from handlens.model.vlm import HandlensModel, SliceBatch
from handlens.train.cells import CellHead, CellTables, GatherHead
from handlens.train.distributed import ALONE, World, layers_of
from handlens.train.feed import IGNORED, Batch, OwnLoss
from handlens.train.losses import next_word_loss
from handlens.train.optim import build_optimisers
from handlens.train.phases import Part, Phase
from handlens.train.reading import ReadingHead
from handlens.train.warmstart import place_codes

PARTS: dict[Part, str] = {"vision": "vpm", "resampler": "resampler", "language": "llm"}
FIXED = "pos_embed"
"""The table of places of a resampler is computed; that of a tower may be learned under the same name."""
Head = ReadingHead | GatherHead | CellHead | CellTables
Scores = dict[str, float]
Place = tuple[list[Tensor], list[dict[Tensor, dict[str, Tensor]]]]
"""Weights that learn, and what each optimiser remembers of each."""


def tensors_of(place: Place) -> list[Tensor]:
    """Return all tensors of a place in one order."""
    return place[0] + [value for memory in place[1] for one in memory.values() for value in one.values()]


def freeze(model: HandlensModel, phase: Phase) -> list[tuple[str, nn.Parameter]]:
    """Let only the parts of the phase learn; return their parameters."""
    learning = []
    for part, attribute in PARTS.items():
        for name, weight in getattr(model, attribute).named_parameters():
            is_added = "lora_" in name or "modules_to_save" in name
            is_fixed = part == "resampler" and name.endswith(FIXED)
            learns = not is_fixed and (is_added if phase.adapter else part in phase.trains)
            weight.requires_grad_(learns)
            if weight.requires_grad:
                learning.append((f"{attribute}.{name}", weight))
    return learning


def has_bfloat16_units(capabilities: Mapping[str, bool | int | str]) -> bool:
    """True where the processor multiplies bfloat16 in hardware; elsewhere it is a hundred times slower."""
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def product_type(device: str = "cpu", precision: str = "auto") -> torch.dtype:
    """Return the type in which matrices are multiplied: bfloat16 where it is asked for or helps."""
    if precision == "auto":
        fit = device == "cuda" or has_bfloat16_units(torch.cpu.get_capabilities())
        precision = "bfloat16" if fit else "float32"
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def arithmetic(device: str = "cpu", precision: str = "auto") -> AbstractContextManager[Any]:
    """Return bfloat16 autocast where it is asked for or helps, plain float32 elsewhere."""
    dtype = product_type(device, precision)
    return nullcontext() if dtype == torch.float32 else torch.autocast(device, dtype)


def recompute_layers(model: HandlensModel) -> None:
    """Make every layer forget what it computed and compute it again on the way back."""
    for layer in (*layers_of(model.vpm), *model.llm.model.layers):
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def eyes_learn(model: HandlensModel) -> bool:
    """True where the tower or the resampler has a weight that learns."""
    return any(weight.requires_grad for part in (model.vpm, model.resampler) for weight in part.parameters())


def blank_slice(model: HandlensModel) -> SliceBatch:
    """Return one grey slice of one patch: every process runs the tower, also for a batch without pictures."""
    vision, width = model.vpm.config, model.resampler.config.width
    device = next(model.parameters()).device
    return SliceBatch(
        torch.zeros(1, 1, 3 * vision.patch_px**2, device=device),
        torch.zeros(1, 1, dtype=torch.int64, device=device),
        torch.zeros(1, 1, width, device=device),
        None,
        grids=((1, 1),),
    )


def reading_loss(model: HandlensModel, head: ReadingHead, batch: Batch) -> tuple[Tensor, Scores]:
    """Loss of naming what each patch shows."""
    assert batch.slices is not None and batch.labels is not None
    seen = model.vpm(batch.slices.patches, batch.slices.position_ids, batch.slices.is_real)
    real = batch.labels[..., 0] >= 0
    places = place_codes(batch.slices, model.vpm.config.table_side, round(model.resampler.config.num_queries**0.5))
    return head(seen[real], batch.labels[real], places.to(seen.device)[real])


def gather_loss(model: HandlensModel, head: GatherHead, batch: Batch) -> tuple[Tensor, Scores]:
    """Loss of naming what each cell holds from what its patches say together."""
    assert batch.slices is not None and batch.labels is not None
    seen = model.vpm(batch.slices.patches, batch.slices.position_ids, batch.slices.is_real)
    places = place_codes(batch.slices, model.vpm.config.table_side, round(model.resampler.config.num_queries**0.5))
    is_real = batch.slices.is_real
    if is_real is None:
        is_real = torch.ones(seen.shape[:2], dtype=torch.bool, device=seen.device)
    return head(seen, places.to(seen.device), is_real, batch.labels)


def evenly(owners: Tensor, num_answers: int) -> Tensor:
    """Return the weight of each target: one over the root of the length of its answer, one on average.

    ``owners`` (targets) has the number of the answer of each, or -1. A page that is read has three hundred words, "yes"
    has one: by the word, what is asked about scenes is hardly heard. Source: InternVL 2.5 (arXiv 2412.05271, 3.3.2).
    """
    lengths = torch.zeros(num_answers + 1, device=owners.device).index_add(
        0, owners + 1, torch.ones(len(owners), device=owners.device)
    )
    weights = lengths[owners + 1] ** -0.5
    return weights * (len(weights) / weights.sum())


def token_loss(
    model: HandlensModel,
    batch: Batch,
    visual: Tensor | None = None,
    num_targets: float | None = None,
    is_even: bool = False,
) -> tuple[Tensor, Scores]:
    """Next-token loss over the targets, and how many whole answers were right.

    ``is_even`` weighs a target by the root of the length of its answer (``evenly``).
    ``visual`` are the visual tokens when they are known already; else the slices are seen here. The sum is divided by
    ``num_targets``, the targets of all batches of the step, or of this batch. An answer counts as exact when every
    token is the most likely one given the right beginning; greedy decoding then yields the same answer.
    """
    unseen = None
    if visual is None and batch.slices is not None:
        visual = model.see(batch.slices)
    elif visual is None and eyes_learn(model):
        unseen = model.see(blank_slice(model))
    embeddings = model.join(batch.ids[None], None if visual is None else batch.is_visual[None], visual)
    if unseen is not None:
        embeddings = embeddings + 0.0 * unseen.sum()
    hidden = model.llm.model(
        inputs_embeds=embeddings,
        position_ids=batch.positions[None],
        use_cache=False,
        segment_lengths=batch.lengths,
    ).last_hidden_state[0]
    # The first token of a conversation is never a target, so the shift does not cross a border.
    is_target = batch.targets[1:] != IGNORED
    owners = batch.tasks[1:][is_target]
    weights = evenly(owners, len(batch.task_names)) if is_even else None
    loss, hit = next_word_loss(model.llm.lm_head, hidden[:-1][is_target], batch.targets[1:][is_target], weights)
    scores = {"tokens": float(hit.float().mean())}
    answered = owners >= 0
    wrong = torch.zeros(len(batch.task_names), device=hit.device)
    wrong = wrong.index_add(0, owners[answered], (~hit[answered]).float())
    for name, misses in zip(batch.task_names, wrong.tolist(), strict=True):
        scores[f"exact/{name}"] = scores.get(f"exact/{name}", 0.0) + float(misses == 0)
        scores[f"count/{name}"] = scores.get(f"count/{name}", 0.0) + 1
    return loss / max(batch.num_targets if num_targets is None else num_targets, 1), scores


def add_up(scores: Sequence[Scores]) -> Scores:
    """Return the scores of one step from those of its batches: counts are added, the rest is averaged."""
    if len(scores) == 1:
        return scores[0]
    names = dict.fromkeys(name for part in scores for name in part)
    values = {name: [part[name] for part in scores if name in part] for name in names}
    return {
        name: sum(some) if name.startswith(("exact/", "count/")) else sum(some) / len(some)
        for name, some in values.items()
    }


class Objective(nn.Module):
    """A model and the throw-away head of a phase as one module, whose output is the loss."""

    def __init__(self, model: HandlensModel, head: Head | None, phase: Phase) -> None:
        super().__init__()
        self.model = model
        self.head = head
        self.phase = phase

    def forward(self, batch: Batch, num_targets: float) -> tuple[Tensor, Scores]:
        """Return this batch's part of the loss of a step, and its scores.

        The parts of all batches of a step add up to its loss: answers are divided by the targets of the whole step,
        what a head names by the number of batches.
        """
        if isinstance(batch, OwnLoss):
            return batch.loss(self.model, num_targets)
        alone = self.phase.local_steps > 1
        share, is_even = 1.0 if alone else 1 / self.phase.streams, self.phase.answer_weight == "root"
        if isinstance(self.head, ReadingHead):
            loss, scores = reading_loss(self.model, self.head, batch)
            return share * loss, scores
        if isinstance(self.head, GatherHead):
            loss, scores = gather_loss(self.model, self.head, batch)
            return share * loss, scores
        if isinstance(self.head, CellTables):
            assert batch.labels is not None
            return token_loss(self.model, batch, self.head(batch.labels), num_targets, is_even)
        if not isinstance(self.head, CellHead):
            return token_loss(self.model, batch, None, num_targets, is_even)
        assert batch.slices is not None and batch.labels is not None
        visual = self.model.see(batch.slices)
        named, scores = self.head(visual, batch.labels)
        if self.phase.objective == "cells":
            return share * named, scores
        answered, more = token_loss(self.model, batch, visual, num_targets, is_even)
        return answered + share * self.phase.cells_weight * named, scores | more | {"answers": float(answered.detach())}


def build_head(model: HandlensModel, config: HandlensConfig, phase: Phase, tokenizer: Tokenizer | None) -> Head | None:
    """Return what a phase adds to the model for its own time."""
    if phase.objective == "reading":
        return ReadingHead(config.vision.width)
    if phase.objective == "gather":
        return GatherHead(config.vision.width, config.resampler.num_heads)
    if phase.objective == "cells" or phase.cells_weight > 0:
        return CellHead(config.resampler.width)
    if phase.objective == "layout" and tokenizer is not None:
        tables = CellTables(config.resampler.width)
        tables.initialise(model.llm.get_input_embeddings().weight, tokenizer)
        return tables
    return None


class Learner:
    """A model with what one phase adds to it: a head, optimisers, and the processes that share the work."""

    def __init__(
        self,
        model: HandlensModel,
        config: HandlensConfig,
        phase: Phase,
        tokenizer: Tokenizer | None = None,
        world: World = ALONE,
    ) -> None:
        self.model, self.phase, self.world = model, phase, world
        self.group = World(device=world.device) if phase.local_steps > 1 else world
        """The processes that find slopes together."""
        self.ahead: Place | None = None
        """Where ``move`` goes after steps that streams took alone."""
        self.head = build_head(model, config, phase, tokenizer)
        freeze(model, phase)
        if phase.recompute:
            recompute_layers(model)
        self.objective = Objective(model, self.head, phase).to(world.device)
        self.shared = self.group.share(self.objective)
        """The objective as the processes see it: whole, copied, or cut into shares."""
        named = [
            (name.removeprefix("model."), weight)
            for name, weight in self.objective.named_parameters()
            if weight.requires_grad
        ]
        self.weights = [weight for _, weight in named]
        self.optimisers = build_optimisers(named, phase, product_type(world.device.type, phase.precision))

    @property
    def modules(self) -> dict[str, Any]:
        """Everything that a checkpoint holds."""
        return {"model": self.model} | self.optimisers | ({"head": self.head} if self.head else {})

    def learn(self, batch: Batch | Sequence[Batch], step: int) -> Scores:
        """Take one step and return its scores; nothing moves when the loss or its slope is not a number.

        Raises:
            TrainingError: the loss, or the size of its gradient, is not finite.
        """
        scores = self.find_slopes([batch] if isinstance(batch, Batch) else list(batch), step)
        self.move()
        return scores

    def find_slopes(self, batches: Sequence[Batch], step: int) -> Scores:
        """Do the part of a step that changes no weight; raises as ``learn``."""
        rate = self.phase.rate_at(step)
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = rate
        return self.go_ahead(batches, step) if self.phase.local_steps > 1 else self.find_slopes_here(batches, step)

    def find_slopes_here(self, batches: Sequence[Batch], step: int) -> Scores:
        """Leave in the weights the slopes of batches that make one step together."""
        for weight in self.weights:
            weight.grad = None
        total, scores = self.slopes(batches)
        self._check("loss", total, step, batches)
        norm = nn.utils.clip_grad_norm_(self.weights, 1.0)
        size = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
        self._check("gradient", size, step, batches)
        return {"loss": total, "norm": size} | scores

    def go_ahead(self, batches: Sequence[Batch], step: int) -> Scores:
        """Let every stream take its steps alone, keep the mean of where they end, and come back."""
        streams = len(batches) // self.phase.local_steps
        start, ends, scores = self.place(), [], []
        try:
            for stream in range(streams):
                for batch in batches[stream::streams]:
                    scores.append(self.find_slopes_here([batch], step))
                    for optimiser in self.optimisers.values():
                        optimiser.step()
                ends.append(self.place())
                self.go_to(start)
        except BaseException:
            self.go_to(start)
            raise
        mean = [torch.stack(some).mean(0) for some in zip(*(tensors_of(end) for end in ends), strict=True)]
        self.world.average(mean)
        for tensor, value in zip(tensors_of(ends[0]), mean, strict=True):
            tensor.copy_(value)
        self.ahead = ends[0]
        told = add_up(scores)
        loss, norm = self.world.add_all([told["loss"], told["norm"]])
        return told | {"loss": loss / self.world.size, "norm": norm / self.world.size}

    @torch.no_grad()
    def place(self) -> Place:
        """Return a copy of the weights that learn and of what the optimisers remember."""
        memory = [
            {weight: {key: value.clone() for key, value in one.items()} for weight, one in optimiser.state.items()}
            for optimiser in self.optimisers.values()
        ]
        return [weight.detach().clone() for weight in self.weights], memory

    @torch.no_grad()
    def go_to(self, place: Place) -> None:
        """Put weights and optimisers where they were when the copy was made."""
        for weight, value in zip(self.weights, place[0], strict=True):
            weight.copy_(value)
        for optimiser, memory in zip(self.optimisers.values(), place[1], strict=True):
            optimiser.state.clear()
            for owner, one in memory.items():
                optimiser.state[owner] = {key: value.clone() for key, value in one.items()}

    def move(self) -> None:
        """Move the weights along the slopes that were found, or to where their streams went alone."""
        if self.ahead is not None:
            self.go_to(self.ahead)
            self.ahead = None
            return
        for optimiser in self.optimisers.values():
            optimiser.step()

    def slopes(self, batches: Sequence[Batch]) -> tuple[float, Scores]:
        """Compute the gradients of a step over all processes; return its loss and the scores of this process."""
        num_targets = self.group.add(sum(batch.divisor for batch in batches))
        total, scores = 0.0, []
        for number, batch in enumerate(batches):
            with self.group.gathering(self.shared, is_last=number == len(batches) - 1):
                with arithmetic(self.world.device.type, self.phase.precision):
                    part, score = self.shared(batch.to(self.world.device), num_targets)
                # Slopes are averaged over processes; the parts of the loss are to be added.
                (part * self.group.size).backward()
            total += float(part.detach())
            scores.append(score)
        return self.group.add(total), add_up(scores)

    @torch.no_grad()
    def measure(self, batches: Iterable[Batch]) -> float:
        """Return the loss of batches that are not learned from."""
        self.model.eval()
        try:
            sums, count = 0.0, 0
            for batch in batches:
                with arithmetic(self.world.device.type, self.phase.precision):
                    sums += float(self.shared(batch.to(self.world.device), 1.0)[0])
                count += batch.divisor
            return self.world.add(sums) / max(self.world.add(count), 1)
        finally:
            self.model.train()

    def _check(self, what: str, value: float, step: int, batches: Sequence[Batch]) -> None:
        if not math.isfinite(value):
            records = sum(len(batch.lengths) for batch in batches)
            raise TrainingError(
                f"phase {self.phase.name}: the {what} of step {step} is {value} "
                f"(the {records} records before {batches[-1].next_index}); "
                f"lower {self.phase.name}.rate (it is {self.phase.rate:g}) and run again"
            )
