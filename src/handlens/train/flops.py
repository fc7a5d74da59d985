"""How much arithmetic a step is: by formula from shapes, and counted by torch while it runs.

Boundary: numbers only. One multiplication and one addition are two operations. Only matrix products are counted,
as torch does; attention counts every pair, also those that a causal mask hides.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from handlens.config import HandlensConfig
from handlens.train.cells import LETTERS, NUM_SLOTS
from handlens.train.feed import Batch
from handlens.train.learner import Learner
from handlens.train.phases import Phase
from handlens.train.reading import CHARACTERS, COLOURS, SHAPES
from handlens.train.warmstart import CODE


@dataclass(frozen=True, kw_only=True)
class Load:
    """What one batch asks for."""

    slice_patches: tuple[int, ...]
    """Patches of each slice, padding included."""
    segments: tuple[int, ...]
    """Tokens of each conversation."""
    targets: int
    labelled: int = 0
    """Patches that a reading head names."""


def load_of(batch: Batch) -> Load:
    """Return what a batch asks for."""
    slices = batch.slices
    return Load(
        slice_patches=() if slices is None else (slices.patches.shape[1],) * len(slices.patches),
        segments=batch.lengths,
        targets=batch.num_targets,
        labelled=0 if batch.labels is None else int((batch.labels[..., 0] >= 0).sum()),
    )


def step_flops(config: HandlensConfig, phase: Phase, load: Load) -> float:
    """Return the operations of the forward and backward pass of one batch.

    A weight that learns costs its forward work twice more, one that only passes slopes on costs it once more.
    """
    sees, talks = phase.sees, phase.talks
    trains = {part: part in phase.trains for part in ("vision", "resampler", "language")}
    compresses = phase.compresses
    total = 0.0
    if sees and load.slice_patches:
        total += _vision(config, load, trains["vision"])
        if compresses:
            total += _resampler(config, load, trains["vision"], trains["resampler"])
    below = (sees and bool(load.slice_patches) and (trains["vision"] or trains["resampler"])) or (
        phase.objective == "layout"
    )
    if talks:
        total += _language(config, load, below, trains["language"])
    return total + _heads(config, phase, load)


def _work(forward: float, *, passes: bool, learns: bool) -> float:
    """Forward work, once more for slopes of inputs, once more for slopes of weights."""
    return forward * (1 + passes + learns)


def _vision(config: HandlensConfig, load: Load, learns: bool) -> float:
    vision = config.vision
    width, total = vision.width, 0.0
    for patches in load.slice_patches:
        embed = 2.0 * patches * 3 * vision.patch_px**2 * width
        linear = vision.num_layers * patches * (8.0 * width**2 + 4.0 * width * vision.mlp_width)
        attention = vision.num_layers * 4.0 * patches**2 * width
        total += _work(embed, passes=False, learns=learns) + _work(linear, passes=learns, learns=learns)
        total += attention * (3 if learns else 1)
    return total


def _resampler(config: HandlensConfig, load: Load, below: bool, learns: bool) -> float:
    resampler = config.resampler
    width, queries, slopes = resampler.width, resampler.num_queries, below or learns
    total = _work(2.0 * queries * width**2, passes=learns, learns=learns)  # queries are projected once for all slices
    for patches in load.slice_patches:
        total += _work(2.0 * patches * resampler.vision_width * width, passes=below, learns=learns)
        total += _work(4.0 * patches * width**2, passes=slopes, learns=learns)
        # Frozen queries need no slope: one of the four products on the way back is left out.
        total += 4.0 * queries * patches * width * (3 if learns else 2.5 if below else 1)
        total += _work(4.0 * queries * width**2, passes=slopes, learns=learns)
    return total


def _language(config: HandlensConfig, load: Load, below: bool, learns: bool) -> float:
    language = config.language
    width, slopes = language.width, below or learns
    inner, outer = language.num_heads * language.head_dim, 2 * language.num_kv_heads * language.head_dim
    per_token = 2.0 * width * (2 * inner + outer) + 6.0 * width * language.mlp_width
    tokens = sum(load.segments)
    total = _work(language.num_layers * tokens * per_token, passes=slopes, learns=learns)
    total += sum(4.0 * length**2 * inner for length in load.segments) * language.num_layers * (3 if slopes else 1)
    return total + _work(2.0 * load.targets * width * language.vocab_size, passes=slopes, learns=learns)


def _heads(config: HandlensConfig, phase: Phase, load: Load) -> float:
    things = len(SHAPES) + len(COLOURS) + 2
    learns = "vision" in phase.trains or "resampler" in phase.trains
    if phase.objective == "reading":
        outputs = 4 * (len(CHARACTERS) + 1) + things + CODE
        return _work(2.0 * load.labelled * config.vision.width * outputs, passes=learns, learns=True)
    if phase.objective == "gather":
        outputs = NUM_SLOTS * (len(LETTERS) + 1) + things
        places, read = len(load.slice_patches) * config.resampler.num_queries, config.resampler.num_heads
        told = 2.0 * sum(load.slice_patches) * config.vision.width * CODE
        pairs = read * config.resampler.num_queries * sum(load.slice_patches)
        gathered = pairs * (2.0 * CODE + 4.0 * config.vision.width)  # places have no slope
        named = 2.0 * places * read * config.vision.width * outputs
        return gathered + _work(told + named, passes=learns, learns=True)
    if phase.objective == "cells" or (phase.objective == "answers" and phase.cells_weight > 0):
        outputs = NUM_SLOTS * (len(LETTERS) + 1) + things
        places = len(load.slice_patches) * config.resampler.num_queries
        return _work(2.0 * places * config.resampler.width * outputs, passes=learns, learns=True)
    return 0.0


def count_step(learner: Learner, batches: Sequence[Batch]) -> float:
    """Return what torch counts in one step without taking it.

    The fused attention of a CPU has no formula in torch, so the step runs with the plain one; its slopes are thrown
    away, because plain attention rounds differently.
    """
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):
        learner.slopes(batches)
    for weight in learner.weights:
        weight.grad = None
    return float(counter.get_total_flops())
