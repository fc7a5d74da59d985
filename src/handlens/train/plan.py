"""What a recipe will do and cost, before it runs: phases, tokens, slices, memory and hours.

Boundary: shapes and formulas; data is drawn only where the recipe draws its own. Estimates are marked as such.
"""

import time
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from handlens.config import HandlensConfig
from handlens.core.slicing import plan_slices
from handlens.core.tokenizer import Tokenizer
from handlens.data.generate import KINDS
from handlens.errors import SettingError, did_you_mean
from handlens.model.checkpoint import load_config
from handlens.train.distributed import Mode
from handlens.train.feed import batches
from handlens.train.flops import Load, load_of, step_flops
from handlens.train.learner import PARTS
from handlens.train.phases import Phase, Recipe
from handlens.train.source import Draw, draw_generated

FLOAT = 4
"""Bytes of a weight, a slope and each moment: they are float32 whatever the arithmetic is."""
PROBES = 3
"""Batches that are drawn to learn what a batch is."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What hours are told for."""

    name: str
    devices: int
    flops_per_second: float
    """Of one device, as training reaches it and not as it is advertised."""
    method: str


MACHINES = {
    "8xA100": Machine(
        name="8xA100", devices=8, flops_per_second=0.4 * 312e12, method="assumed: 40 % of 312 TFLOP/s (bfloat16) each"
    ),
    "8xH100": Machine(
        name="8xH100", devices=8, flops_per_second=0.4 * 989e12, method="assumed: 40 % of 989 TFLOP/s (bfloat16) each"
    ),
}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One row of the dry run."""

    phase: str
    trains: tuple[str, ...]
    frozen: tuple[str, ...]
    resolution_px: tuple[int, ...]
    slicing: bool
    data: dict[str, float]
    languages: dict[str, float]
    schedule: str
    rate: float
    steps: int
    samples: int
    slices: int
    tokens: int
    """Places of packed rows: words and visual tokens."""
    flops: float
    memory_bytes: int
    """Of one process: weights, slopes, moments and what layers hold for the way back."""
    hours: float
    method: str
    substitutes: dict[str, str]


def this_machine() -> Machine:
    """Measure a matrix product of the size and type that small models have; training reaches about half of it."""
    from handlens.train.learner import product_type

    one = torch.randn(512, 512).to(product_type())
    best = float("inf")
    for _ in range(15):
        start = time.perf_counter()
        torch.mm(one, one)
        best = min(best, time.perf_counter() - start)
    rate = 2.0 * 512**3 / best
    return Machine(
        name="this machine",
        devices=1,
        flops_per_second=0.5 * rate,
        method=f"estimated: half of {rate / 1e9:.0f} GFLOP/s, which a matrix product reached here just now; drawing "
        "pictures not counted",
    )


def machine_named(name: str) -> Machine:
    """Return a machine; the empty name is this one.

    Raises:
        SettingError: the name is unknown.
    """
    if not name:
        return this_machine()
    if name not in MACHINES:
        raise SettingError(f"unknown machine '{name}'{did_you_mean(name, MACHINES)}")
    return MACHINES[name]


def part_sizes(config: HandlensConfig) -> dict[str, int]:
    """Return the weights of each part of the model, without making it."""
    vision, resampler, language = config.vision, config.resampler, config.language
    width, wide = vision.width, vision.mlp_width
    block = 4 * (width**2 + width) + 2 * width * wide + wide + width + 4 * width
    embed = (3 * vision.patch_px**2 + 1) * width + vision.table_side**2 * width
    dim, queries = resampler.width, resampler.num_queries
    compress = queries * dim + resampler.vision_width * dim + 4 * (dim**2 + dim) + dim**2 + 6 * dim
    inner, outer = language.num_heads * language.head_dim, 2 * language.num_kv_heads * language.head_dim
    layer = language.width * (2 * inner + outer) + 3 * language.width * language.mlp_width + 2 * language.width
    words = language.vocab_size * language.width * (1 if language.tied else 2)
    return {
        "vision": embed + vision.num_layers * block + 2 * width,
        "resampler": compress + (queries * dim if resampler.query_positions else 0),
        "language": words + language.num_layers * layer + language.width,
    }


def held_bytes(config: HandlensConfig, phase: Phase, load: Load) -> float:
    """Return what layers hold for the way back for one batch, in bytes.

    Per place and layer: the inputs of every matrix product, of every norm and of the bend between them.
    """
    size = 2 if phase.precision == "bfloat16" else 4
    total = 0.0
    vision, resampler, language = config.vision, config.resampler, config.language
    patches = sum(load.slice_patches) if phase.sees else 0
    below = False
    if patches and "vision" in phase.trains:
        per_layer = vision.width * (1 if phase.recompute else 9) + (0 if phase.recompute else 2 * vision.mlp_width)
        total += patches * (per_layer * vision.num_layers + 3 * vision.patch_px**2)
        below = True
    if patches and phase.compresses and (below or "resampler" in phase.trains):
        total += patches * (resampler.vision_width + 5 * resampler.width)
        total += len(load.slice_patches) * resampler.num_queries * 5 * resampler.width
        below = True
    if phase.talks and (below or "language" in phase.trains):
        inner = (language.num_heads + language.num_kv_heads) * language.head_dim
        per_layer = language.width if phase.recompute else 7 * language.width + 2 * inner + 4 * language.mlp_width
        total += sum(load.segments) * per_layer * language.num_layers
        # Logits and their slopes; larger vocabularies are made a piece at a time.
        total += min(load.targets * language.vocab_size, 1 << 25) * 2
    return total * size


def memory_of(
    config: HandlensConfig,
    phase: Phase,
    load: Load,
    devices: int,
    *,
    learning: int | None = None,
    mode: Mode = "fsdp",
) -> int:
    """Return the bytes of one process: its weights, slopes and moments, and one batch on its way.

    ``learning`` is the number of weights that learn where an adapter adds them; None: all of the parts that train.
    Devices share weights out in mode ``fsdp`` alone.
    """
    sizes = part_sizes(config)
    if learning is None:
        learning = sum(size for part, size in sizes.items() if part in phase.trains)
    # Muon has one moment for matrices; two for all is the upper end.
    kept = (sum(sizes.values()) + 3 * learning) * FLOAT
    return round(kept / (devices if mode == "fsdp" else 1) + held_bytes(config, phase, load))


def typical_load(phase: Phase, config: HandlensConfig) -> Load:
    """Return a usual batch of one stream of a phase whose data is not at hand."""
    plan = plan_slices(
        *phase.typical_px, side_px=max(phase.sides_px), patch_px=config.slicing.patch_px,
        max_slices=config.slicing.max_slices if phase.slicing else 1,
    )  # fmt: skip
    own = tuple(rows * columns for rows, columns in plan.patches)
    visual = len(own) * config.resampler.num_queries
    pictures = phase.pictures_per_step
    return Load(
        slice_patches=own * pictures,
        segments=(visual + phase.typical_tokens,) * pictures,
        targets=phase.typical_tokens * pictures,
    )


def drawn_load(phase: Phase, config: HandlensConfig, tokenizer: Tokenizer | None, seed: int, draw: Draw) -> Load:
    """Return the middle one of a few batches that are really drawn."""
    loads = [load_of(batch) for batch in islice(batches(phase, config, tokenizer, seed=seed, draw=draw), PROBES)]
    return sorted(loads, key=lambda load: step_flops(config, phase, load))[PROBES // 2]


def plan_recipe(
    recipe: Recipe,
    config: HandlensConfig,
    tokenizer: Tokenizer | None,
    machine: Machine,
    draw: Draw = draw_generated,
    *,
    mode: Mode = "fsdp",
) -> list[Cost]:
    """Return what every phase of a recipe will do and cost."""
    costs = []
    for phase in recipe.phases:
        is_drawn = not phase.typical_tokens and (draw is not draw_generated or set(phase.mixture) <= set(KINDS))
        load = drawn_load(phase, config, tokenizer, recipe.seed, draw) if is_drawn else typical_load(phase, config)
        costs.append(price(phase, config, load, machine, mode=mode))
    return costs


def schedule_of(phase: Phase) -> str:
    """Return in words how the rate rises and falls, and what a step is where streams go alone."""
    if phase.warmup_steps >= phase.steps:
        words = f"rises over {phase.warmup_steps} steps and the phase ends there or before"
    else:
        words = f"{phase.schedule}, {phase.warmup_steps} steps of warm-up"
    if phase.schedule == "linear" and phase.warmup_steps < phase.steps:
        words += f", falls in the last {100 * phase.decay_share:g} %" if phase.decay_share else ", does not fall"
    if phase.local_steps > 1:
        words += f"; every stream takes {phase.local_steps} steps alone in each"
    return words


def price(
    phase: Phase,
    config: HandlensConfig,
    load: Load,
    machine: Machine,
    *,
    learning: int | None = None,
    mode: Mode = "fsdp",
) -> Cost:
    """Return the cost of a phase whose batches are all like ``load``; ``learning`` and ``mode``: see ``memory_of``."""
    times = phase.steps * phase.streams * phase.local_steps
    flops = times * step_flops(config, phase, load) * (4 / 3 if phase.recompute else 1)
    sees, talks = phase.sees, phase.talks
    return Cost(
        phase=phase.name,
        trains=phase.trains,
        frozen=tuple(part for part in PARTS if part not in phase.trains),
        resolution_px=phase.sides_px,
        slicing=phase.slicing,
        data=phase.mixture,
        languages=phase.languages,
        schedule=schedule_of(phase),
        rate=phase.rate,
        steps=phase.steps,
        samples=phase.samples or times * max(len(load.segments), 1),
        slices=times * len(load.slice_patches) if sees else 0,
        tokens=times * sum(load.segments) if talks else 0,
        flops=flops,
        memory_bytes=memory_of(config, phase, load, machine.devices, learning=learning, mode=mode),
        hours=flops / (machine.flops_per_second * machine.devices * 3600),
        method=machine.method,
        substitutes=phase.substitutes,
    )


def plan_json(recipe: Recipe, config: HandlensConfig, machine: Machine, costs: list[Cost]) -> dict[str, Any]:
    """Return the whole dry run as plain JSON."""
    sizes = part_sizes(config)
    return {
        "recipe": recipe.name,
        "about": recipe.about,
        "needs": list(recipe.needs),
        "machine": asdict(machine),
        "weights": sizes | {"all": sum(sizes.values())},
        "phases": [asdict(cost) for cost in costs],
        "total": {
            "samples": sum(cost.samples for cost in costs),
            "slices": sum(cost.slices for cost in costs),
            "tokens": sum(cost.tokens for cost in costs),
            "flops": sum(cost.flops for cost in costs),
            "hours": sum(cost.hours for cost in costs),
            "memory_bytes": max(cost.memory_bytes for cost in costs),
        },
    }


def plan_named(
    name: str,
    settings: dict[str, str],
    machine_name: str = "",
    draw: Draw = draw_generated,
    *,
    base: Path | None = None,
    mode: Mode = "fsdp",
) -> dict[str, Any]:
    """Return the dry run of a recipe as plain JSON; shape and vocabulary are those of ``base`` where it is given.

    Raises:
        SettingError: unknown recipe, phase, setting or machine.
        ModelError: a file of ``base`` is missing or damaged.
    """
    from handlens.train.choose import apply_settings, resolve
    from handlens.train.run import VOCABULARY, check_base, vocabulary_texts
    from handlens.train.vocabulary import train_vocabulary

    recipe, module = resolve(name)
    recipe = apply_settings(recipe, settings)
    machine = machine_named(machine_name or recipe.machine)
    tokenizer = None
    if base is not None:
        check_base(base, module.model(recipe.vocab_size).family)
        tokenizer = Tokenizer.from_file(base / VOCABULARY)
    elif not recipe.needs:
        fast = train_vocabulary(vocabulary_texts(recipe, 60), recipe.vocab_size)
        tokenizer = Tokenizer(fast)
    config = module.model(recipe.vocab_size) if base is None else load_config(base)
    if draw is not draw_generated:
        recipe = replace(recipe, phases=tuple(replace(phase, typical_tokens=0) for phase in recipe.phases))
    return plan_json(recipe, config, machine, plan_recipe(recipe, config, tokenizer, machine, draw, mode=mode))
