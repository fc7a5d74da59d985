"""What training on a data set costs, before it is paid: tokens, slices, memory and hours.

Boundary: arithmetic on a report, a shape and a machine; nothing is run. The estimate counts matrix
multiplications and leaves out reading and decoding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from handlens.config import HandlensConfig, LanguageConfig, ResamplerConfig, SlicingConfig, VisionConfig
from handlens.data.check import Report
from handlens.errors import SettingError, did_you_mean

PARTS = ("vision", "resampler", "language")
BYTES_TRAINED = 16
"""Per weight: fp32 weight, gradient and two moments of Adam."""
BYTES_FROZEN = 2
ACTIVATION_BYTES = 34
"""Per token, layer and channel in 16 bits, without attention maps (arXiv 2205.05198, equation 2)."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine, or one device of many."""

    name: str
    flops: float
    """Sustained in training, FLOP/s."""
    memory_bytes: float
    source: str


MACHINES = {
    row.name: row
    for row in (
        Machine(name="epyc2", flops=60e9, memory_bytes=25e9, source="2 cores; assumed, not measured"),
        Machine(name="a100", flops=0.4 * 312e12, memory_bytes=80e9, source="40 % of the bf16 figure of its data sheet"),
        Machine(name="h100", flops=0.4 * 989e12, memory_bytes=80e9, source="40 % of the bf16 figure of its data sheet"),
    )
}


@dataclass(frozen=True, kw_only=True)
class Price:
    """One epoch over a data set."""

    recipe: str
    machine: str
    samples: int
    tokens: int
    target_tokens: int
    slices: int
    patches: int
    flops: float
    memory_bytes: float
    """Weights, gradients and moments, and the activations of one packed row; without recomputation."""
    hours: float
    fits: bool

    def to_json(self) -> dict[str, Any]:
        """Return all fields as plain JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def minicpm_v_2_5() -> HandlensConfig:
    """Return the shape of MiniCPM-Llama3-V 2.5 (arXiv 2408.01800 and its released ``config.json``)."""
    return HandlensConfig(
        family="2.5",
        vision=VisionConfig(width=1152, mlp_width=4304, num_layers=27, num_heads=16),
        resampler=ResamplerConfig(num_queries=96, width=4096, vision_width=1152),
        language=LanguageConfig(
            vocab_size=128_256, width=4096, mlp_width=14_336, num_layers=32, num_heads=32, num_kv_heads=8
        ),
        slicing=SlicingConfig(side_px=448, max_slices=9),
    )


def _nano() -> HandlensConfig:
    from handlens.recipes.nano import model

    return model()


RECIPES: dict[str, Callable[[], HandlensConfig]] = {"nano": _nano, "minicpm-v-2.5": minicpm_v_2_5}
TRAINS = {
    "warmup": ("resampler",), "resolution": ("vision",), "adaptive": ("vision", "resampler"), "sft": PARTS,
}  # fmt: skip
"""Phase -> what learns (arXiv 2408.01800, sections 4.1 and 4.2)."""


def price(report: Report, recipe: str = "nano:sft", machine: str = "epyc2", *, row_tokens: int = 2048) -> Price:
    """Return the cost of one epoch.

    Raises:
        SettingError: an unknown recipe, phase or machine.
    """
    name, _, phase = recipe.partition(":")
    phase = phase or "sft"
    for what, value, known in (("recipe", name, RECIPES), ("phase", phase, TRAINS), ("machine", machine, MACHINES)):
        if value not in known:
            raise SettingError(f"unknown {what} '{value}'{did_you_mean(value, known)}")
    shape, trains, device = RECIPES[name](), TRAINS[phase], MACHINES[machine]
    weights = num_weights(shape)
    visual = report.slices * shape.resampler.num_queries
    work = {
        "vision": 2 * weights["vision"] * report.patches
        + 4 * shape.vision.num_layers * shape.vision.width * report.patches**2 / max(report.slices, 1),
        "resampler": 2 * weights["resampler"] * (report.patches + visual) / 2,
        "language": 2 * weights["language"] * report.tokens
        + 2 * shape.language.num_layers * shape.language.width * report.tokens * report.tokens / max(report.samples, 1),
    }
    deepest = min(PARTS.index(part) for part in trains)
    # forward 1, gradient to the input 1, gradient to the weights 1
    share = {
        part: 1 + (PARTS.index(part) > deepest or part in trains) + (part in trains)
        for part in PARTS
    }  # fmt: skip
    flops = sum(work[part] * share[part] for part in PARTS)
    memory: float = 0.0
    memory += sum(weights[part] * (BYTES_TRAINED if part in trains else BYTES_FROZEN) for part in PARTS)
    memory += shape.language.vocab_size * shape.language.width * BYTES_FROZEN
    memory += ACTIVATION_BYTES * row_tokens * shape.language.num_layers * shape.language.width
    if "vision" in trains and report.tokens:
        patches = row_tokens * report.patches / report.tokens
        memory += ACTIVATION_BYTES * patches * shape.vision.num_layers * shape.vision.width
    return Price(
        recipe=f"{name}:{phase}", machine=machine, samples=report.samples, tokens=report.tokens,
        target_tokens=report.targets, slices=report.slices, patches=report.patches, flops=flops,
        memory_bytes=memory, hours=flops / device.flops / 3600, fits=memory <= device.memory_bytes,
    )  # fmt: skip


def num_weights(shape: HandlensConfig) -> dict[str, int]:
    """Return the weights that take part in multiplications, of each part."""
    vision, resampler, language = shape.vision, shape.resampler, shape.language
    head = language.width // language.num_heads
    attention = 2 * language.width * language.width + 2 * language.width * head * language.num_kv_heads
    return {
        "vision": vision.num_layers * (4 * vision.width**2 + 2 * vision.width * vision.mlp_width)
        + 3 * vision.patch_px**2 * vision.width,
        "resampler": resampler.vision_width * resampler.width + 5 * resampler.width**2,
        "language": language.num_layers * (attention + 3 * language.width * language.mlp_width)
        + language.vocab_size * language.width,
    }
