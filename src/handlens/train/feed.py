"""The data's way into training: record -> slices -> patches and token ids -> batch.

Boundary: everything is a pure function of (phase, seed, index), so a run resumes by its next index alone.
Pictures and prompts go through ``core``, the same code that the device runs.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from PIL import Image

from handlens.config import HandlensConfig
from handlens.core.chat import Chat, Shown, Turn
from handlens.core.patches import key_positions, position_ids, to_patches
from handlens.core.prompt import build_prompt
from handlens.core.slicing import SlicePlan, cut, plan_slices
from handlens.core.tokenizer import Tokenizer
from handlens.data.generate.scene_talk import describe
from handlens.data.records import Line, Record
from handlens.data.records import Turn as RecordTurn
from handlens.families import Family, family_named
from handlens.model.vlm import HandlensModel, SliceBatch
from handlens.train.cells import cell_labels
from handlens.train.phases import Phase
from handlens.train.reading import patch_labels
from handlens.train.source import Draw, draw_generated

Collate = Callable[[list[Any], HandlensConfig, int], "Batch"]
CAPTION_TASKS = (".read", ".line", ".describe", ".markdown")
IGNORED = -100


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One picture with its conversation, ready to be batched."""

    patches: list[UInt8[np.ndarray, "_ pixels"]]
    plans: tuple[SlicePlan, ...]
    """How each picture is divided."""
    labels: list[Int64[np.ndarray, "_ labels"]] | None
    """What is in each patch (``reading``) or in each cell (``cells``, ``layout``)."""
    ids: Int64[np.ndarray, "tokens"]
    is_visual: np.ndarray
    targets: Int64[np.ndarray, "tokens"]
    """``ids`` where the model is to predict them, -100 elsewhere."""
    tasks: Int64[np.ndarray, "tokens"]
    """Number of the turn that a target belongs to, -1 elsewhere."""
    task_names: tuple[str, ...]

    @property
    def num_slices(self) -> int:
        """Slices of all pictures, overviews counted."""
        return sum(plan.num_slices for plan in self.plans)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one step sees: conversations packed end to end in one row."""

    slices: SliceBatch | None
    labels: torch.Tensor | None
    ids: torch.Tensor
    is_visual: torch.Tensor
    targets: torch.Tensor
    tasks: torch.Tensor
    """Number of the answer that a target belongs to, counted over the batch; -1 elsewhere."""
    task_names: tuple[str, ...]
    lengths: tuple[int, ...]
    """Tokens of each conversation."""
    next_index: int
    """The record with which the following batch begins."""

    @property
    def positions(self) -> torch.Tensor:
        """Position of each token in its own conversation."""
        return torch.cat([torch.arange(length, device=self.ids.device) for length in self.lengths])

    @property
    def num_targets(self) -> int:
        """Tokens that are to be predicted."""
        return int((self.targets[1:] != IGNORED).sum())

    @property
    def divisor(self) -> int:
        """What the sum of the losses is divided by, all batches of a step together."""
        return self.num_targets

    def to(self, device: torch.device) -> "Batch":
        """Return the batch with its tensors on a device."""
        if self.ids.device == device:
            return self
        return replace(
            self,
            slices=None if self.slices is None else self.slices.to(torch.empty(0, device=device)),
            labels=None if self.labels is None else self.labels.to(device, non_blocking=True),
            ids=self.ids.to(device, non_blocking=True),
            is_visual=self.is_visual.to(device, non_blocking=True),
            targets=self.targets.to(device, non_blocking=True),
            tasks=self.tasks.to(device, non_blocking=True),
        )


class OwnLoss(ABC):
    """A batch that brings its loss with it, where what is learned is not the next word."""

    @abstractmethod
    def loss(self, model: HandlensModel, divisor: float) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the batch's part of the loss of a step, and its scores."""


def picture_text(record: Record) -> str:
    """Return in words what the picture shows, for the phase that has no eyes."""
    if record.kind == "scenes":
        described = [turn.answer for turn in record.turns if turn.task.endswith(".describe")]
        return described[0] if described else describe(record.things, *record.picture.size)
    rows: list[list[Line]] = []
    for line in record.lines:
        middle = (line.box[1] + line.box[3]) / 2
        last = rows[-1][-1].box if rows else None
        # Cells of one row share a height and stand to the right of each other.
        if last and last[1] < middle < last[3] and line.box[0] > last[0]:
            rows[-1].append(line)
        else:
            rows.append([line])
    return "\n".join(" ".join(line.text for line in row) for row in rows)


def choose_turns(record: Record, phase: Phase, rng: random.Random) -> list[RecordTurn]:
    """Return the turns of a record that a phase uses, shuffled."""
    turns = list(record.turns)
    if phase.captions_only:
        turns = [turn for turn in turns if turn.task.endswith(CAPTION_TASKS)] or turns[:1]
    rng.shuffle(turns)
    return turns[: phase.turns_per_picture]


def build_targets(
    first: Int64[np.ndarray, "tokens"], turns: list[RecordTurn], family: Family, tokenizer: Tokenizer
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ids, targets and turn numbers of a conversation whose prompt for the first answer is ``first``."""
    template = family.template
    stop = template.stops[0]
    head, tail = template.assistant.split("{text}")
    assert head == template.opening, "the answer begins where the prompt ends"
    after = tail.removeprefix(stop)
    ids, targets, owners = [first], [np.full(len(first), IGNORED)], [np.full(len(first), -1)]
    for number, turn in enumerate(turns):
        answer = tokenizer.encode(turn.answer + stop)
        following = "".join(
            template.user.replace("{text}", later.question) + template.opening
            for later in turns[number + 1 : number + 2]
        )
        bridge = tokenizer.encode(after + following)
        ids += [answer, bridge]
        targets += [answer, np.full(len(bridge), IGNORED)]
        owners += [np.full(len(answer), number), np.full(len(bridge), -1)]
    return np.concatenate(ids), np.concatenate(targets), np.concatenate(owners)


def build_sample(
    record: Record,
    phase: Phase,
    config: HandlensConfig,
    tokenizer: Tokenizer | None,
    side_px: int,
    rng: random.Random,
) -> Sample:
    """Return the sample of one record at a resolution."""
    family = family_named(config.family)
    picture = record.picture
    if phase.zoomed_share and rng.random() < phase.zoomed_share:
        zoom = rng.uniform(1.4, 2.2)
        picture = picture.resize((round(picture.width * zoom), round(picture.height * zoom)), Image.Resampling.BICUBIC)
    plan = plan_slices(
        picture.width, picture.height, side_px=side_px,
        max_slices=config.slicing.max_slices if phase.slicing else 1, patch_px=config.slicing.patch_px,
    )  # fmt: skip
    patches = []
    if phase.sees:
        patches = [
            to_patches(np.asarray(image).transpose(2, 0, 1), config.slicing.patch_px) for image in cut(picture, plan)
        ]
    labels = None
    if phase.objective == "reading":
        labels = patch_labels(record, plan)
    elif phase.objective in ("gather", "cells", "layout") or phase.cells_weight > 0:
        labels = cell_labels(record, plan, round(config.resampler.num_queries**0.5))
    if not phase.talks or tokenizer is None:
        empty = np.zeros(1, dtype=np.int64)
        return Sample(
            patches=patches, plans=(plan,), labels=labels, ids=empty, is_visual=empty.astype(bool),
            targets=empty + IGNORED, tasks=empty - 1, task_names=(),
        )  # fmt: skip
    turns = choose_turns(record, phase, rng)
    if phase.objective == "text":
        head = f"<image_id>0</image_id><image>{picture_text(record)}</image>\n" + turns[0].question
        text = family.template.user.replace("{text}", head) + family.template.opening
        first = tokenizer.encode(text)
        ids, targets, owners = build_targets(first, turns, family, tokenizer)
        is_visual = np.zeros(len(ids), dtype=bool)
    else:
        chat: Chat = (Turn("user", (Shown(0), turns[0].question)),)
        prompt = build_prompt(chat, [plan], family, tokenizer, config.resampler.num_queries)
        ids, targets, owners = build_targets(prompt.ids, turns, family, tokenizer)
        is_visual = np.concatenate([prompt.is_visual, np.zeros(len(ids) - len(prompt.ids), dtype=bool)])
    return Sample(
        patches=patches, plans=(plan,), labels=labels, ids=ids, is_visual=is_visual, targets=targets, tasks=owners,
        task_names=tuple(turn.task for turn in turns),
    )  # fmt: skip


def normalise_bytes(
    patches: UInt8[np.ndarray, "slices patches pixels"],
) -> Float32[np.ndarray, "slices patches pixels"]:
    """Return bytes scaled to [-1, 1] by the arithmetic of ``core.patches.normalise``."""
    table = ((np.arange(256, dtype=np.float32) / np.float32(255)) - np.float32(0.5)) / np.float32(0.5)
    return table[patches]


def collate(samples: list[Sample], config: HandlensConfig, next_index: int) -> Batch:
    """Pack conversations end to end and pad slices to one length."""
    owners: list[np.ndarray] = []
    names: list[str] = []
    for sample in samples:
        owners.append(np.where(sample.tasks >= 0, sample.tasks + len(names), -1))
        names += sample.task_names
    return Batch(
        slices=pad_slices(samples, config) if any(sample.patches for sample in samples) else None,
        labels=None if samples[0].labels is None else pad_labels(samples),
        ids=torch.from_numpy(np.concatenate([sample.ids for sample in samples])),
        is_visual=torch.from_numpy(np.concatenate([sample.is_visual for sample in samples])),
        targets=torch.from_numpy(np.concatenate([sample.targets for sample in samples])),
        tasks=torch.from_numpy(np.concatenate(owners)),
        task_names=tuple(names),
        lengths=tuple(len(sample.ids) for sample in samples),
        next_index=next_index,
    )


def pad_slices(samples: list[Sample], config: HandlensConfig) -> SliceBatch:
    """Return the slices of all samples, padded to the longest."""
    flat = [
        pair
        for sample in samples
        if sample.patches
        for pair in zip(sample.patches, (shape for plan in sample.plans for shape in plan.patches), strict=True)
    ]
    longest = max(len(patches) for patches, _ in flat)
    pixels = np.full((len(flat), longest, flat[0][0].shape[1]), 128, dtype=np.uint8)
    places = np.zeros((len(flat), longest), dtype=np.int64)
    keys = np.zeros((len(flat), longest, config.resampler.width), dtype=np.float32)
    is_real = np.zeros((len(flat), longest), dtype=bool)
    rule = family_named(config.family).position_rule
    for number, (patches, (rows, columns)) in enumerate(flat):
        count = len(patches)
        pixels[number, :count] = patches
        places[number, :count] = position_ids(rows, columns, table_side=config.vision.table_side, rule=rule)
        keys[number, :count] = key_positions(rows, columns, config.resampler.width)
        is_real[number, :count] = True
    return SliceBatch(
        torch.from_numpy(normalise_bytes(pixels)),
        torch.from_numpy(places),
        torch.from_numpy(keys),
        None if is_real.all() else torch.from_numpy(is_real),
        tuple(shape for _, shape in flat),
    )


def pad_labels(samples: list[Sample]) -> torch.Tensor:
    """Return the labels of all slices; -1 marks padding."""
    grids = [grid for sample in samples for grid in sample.labels or []]
    table = np.full((len(grids), max(map(len, grids)), grids[0].shape[1]), -1, dtype=np.int64)
    for row, values in zip(table, grids, strict=True):
        row[: len(values)] = values
    return torch.from_numpy(table)


def batches(
    phase: Phase,
    config: HandlensConfig,
    tokenizer: Tokenizer | None,
    *,
    seed: int,
    start: int = 0,
    split: str = "train",
    draw: Draw = draw_generated,
) -> Iterator[Batch]:
    """Yield batches without end, beginning at record ``start``; sizes are limited by slices and by pictures.

    A stream has every ``phase.streams``-th record: number ``v`` begins at record ``v``. A ``draw`` that makes samples
    of its own may bring its own ``collate``.
    """
    pack: Collate = getattr(draw, "collate", collate)
    index = start
    while True:
        rng = random.Random(f"{seed}/{phase.name}/{index}/batch")
        side_px = rng.choice(phase.sides_px)
        # A smaller slice side has fewer patches, so more slices cost the same.
        budget = round(phase.slices_per_step * min((max(phase.sides_px) / side_px) ** 2, 3.0))
        samples: list[Sample] = []
        used = 0
        while len(samples) < phase.pictures_per_step:
            own = random.Random(f"{seed}/{phase.name}/{index}")
            record = draw(phase, own, index, split)
            is_built = isinstance(record, Sample)
            sample = record if is_built else build_sample(record, phase, config, tokenizer, side_px, own)
            if samples and used + sample.num_slices > budget:
                break
            samples.append(sample)
            used += sample.num_slices
            index += phase.streams
        yield pack(samples, config, index)
