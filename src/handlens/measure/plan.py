"""Predict peak memory and time per phase before anything is loaded.

Boundary: a geometry, a device and a picture size in, four phases out. Memory is counted from tensors; times are
operations and bytes divided by what the device reaches, corrected by what earlier runs on this machine took.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from handlens.core.slicing import SlicePlan, plan_slices
from handlens.engine import signed_weights
from handlens.engine.memory import human
from handlens.engine.setup import Setup
from handlens.errors import SettingError
from handlens.measure.devices import Device
from handlens.measure.geometry import PROMPT_TEXT_TOKENS, Geometry

PHASES = ("load", "encode", "prefill", "decode")
CELLS_STEP = 256

# Shares of the device's best rate that the engines reach, measured on x86 at true geometry; see docs/device.md.
VISION_SHARE = 0.7
PREFILL_SHARE = {True: 0.85, False: 0.45}
"""Of 32-bit arithmetic, with weights laid out anew and without: 4-bit weights meet 8-bit activations."""
DECODE_SHARE = 0.5
"""Of memory bandwidth."""
SAFE_SHARE = 0.9
"""Of the memory of a device that one program may take before others are pushed out."""

# Bytes a vision session holds per byte of its file, while it loads and after.
LOAD_FACTOR = {"fp32": 2.1, "int8": 2.0}
HOLD_FACTOR = {"fp32": 1.15, "int8": 1.35, "beside": 1.0}
SESSION_BYTES = 12_000_000
STAGED_SHARE = 0.4
"""Of the largest tensor, what is held twice at the peak of copying."""
LEFT_BYTES = 24_000_000
"""What stays after the vision half is released: touched code of the engines and heap that cannot shrink."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What one phase needs."""

    name: str
    peak_bytes: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"name": self.name, "peak_bytes": self.peak_bytes, "seconds": round(self.seconds, 4)}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What an answer about one picture needs on one device."""

    model: str
    device: str
    phases: tuple[Phase, ...]
    num_slices: int
    prompt_tokens: int
    answer_tokens: int
    warnings: tuple[str, ...] = ()
    parts: Mapping[str, int] = field(default_factory=dict)
    """Bytes of what the peaks are made of."""

    @property
    def peak_bytes(self) -> int:
        """The most memory at any time."""
        return max(phase.peak_bytes for phase in self.phases)

    @property
    def first_word_seconds(self) -> float:
        """Load, encode and read the prompt."""
        return sum(phase.seconds for phase in self.phases if phase.name != "decode")

    @property
    def tokens_per_second(self) -> float:
        """Of the answer."""
        return self.answer_tokens / self.phase("decode").seconds

    def phase(self, name: str) -> Phase:
        """Return one phase."""
        return next(phase for phase in self.phases if phase.name == name)

    def to_json(self) -> dict[str, Any]:
        """Return plain values; ``phases`` has name, peak_bytes and seconds of each."""
        return {
            "model": self.model,
            "device": self.device,
            "phases": [phase.to_json() for phase in self.phases],
            "peak_bytes": self.peak_bytes,
            "first_word_seconds": round(self.first_word_seconds, 4),
            "tokens_per_second": round(self.tokens_per_second, 3),
            "num_slices": self.num_slices,
            "prompt_tokens": self.prompt_tokens,
            "answer_tokens": self.answer_tokens,
            "parts": dict(self.parts),
            "warnings": list(self.warnings),
        }


def make_plan(
    geometry: Geometry,
    device: Device,
    size: tuple[int, int],
    *,
    setup: Setup | None = None,
    max_slices: int | None = None,
    answer_tokens: int = 128,
    text_tokens: int = PROMPT_TEXT_TOKENS,
    keep: bool = False,
    corrections: Mapping[str, float] | None = None,
) -> Plan:
    """Return what an answer about a picture of ``size`` (width, height in px) needs.

    Args:
        geometry: the model.
        device: where it runs.
        size: of the picture.
        setup: how it runs; None is the defaults.
        max_slices: None is the model's.
        answer_tokens: tokens of the answer.
        text_tokens: tokens of the question with its template.
        keep: both halves stay in memory.
        corrections: phase -> factor of its seconds, learnt from earlier runs.

    Raises:
        SettingError: the prompt does not fit into the model's positions.
    """
    setup, corrections = setup or Setup(), corrections or {}
    plan = plan_slices(*size, side_px=geometry.side_px, max_slices=max_slices or geometry.max_slices)
    prompt_tokens = geometry.visual_tokens(plan) + 4 * plan.num_slices + text_tokens
    positions = geometry.language.max_positions
    if prompt_tokens + answer_tokens > positions:
        raise SettingError(
            f"a prompt of {prompt_tokens} tokens and an answer of {answer_tokens} do not fit into the {positions} "
            "positions of this model; allow fewer slices or a shorter answer"
        )
    is_signed = device.is_measured and signed_weights.pays_here()
    parts = count_bytes(geometry, plan, size, prompt_tokens, answer_tokens, setup, is_signed=is_signed)
    peaks = _peaks(parts, device.runtime_bytes, keep=keep)
    seconds = _seconds(geometry, device, plan, prompt_tokens, answer_tokens, setup)
    phases = tuple(
        Phase(name=name, peak_bytes=peaks[name], seconds=seconds[name] * corrections.get(name, 1.0)) for name in PHASES
    )
    made = Plan(
        model=geometry.name, device=device.name, phases=phases, num_slices=plan.num_slices,
        prompt_tokens=prompt_tokens, answer_tokens=answer_tokens, parts=parts | {"runtime": device.runtime_bytes},
    )  # fmt: skip
    return _warned(made, device)


def count_bytes(
    geometry: Geometry,
    plan: SlicePlan,
    size: tuple[int, int],
    prompt_tokens: int,
    answer_tokens: int,
    setup: Setup,
    *,
    is_signed: bool = False,
) -> dict[str, int]:
    """Return the bytes of everything that is held at some time; signed weights are a copy of those in the file."""
    vision, language = geometry.vision, geometry.language
    patches = max(rows * columns for rows, columns in plan.patches)
    cell_px = sum(rows * columns for rows, columns in plan.patches) * vision.patch_px**2
    refined_px = plan.refined[0] * plan.refined[1] if plan.refined else 0
    cells = -(-(prompt_tokens + answer_tokens) // CELLS_STEP) * CELLS_STEP
    batch = min(setup.micro_batch, setup.batch, prompt_tokens)
    is_copied = geometry.is_repacked and setup.repack if setup.mmap is None else not setup.mmap
    scores = 0 if setup.flash else 2 * language.num_heads * batch * cells * 4
    kv = geometry.kv_bytes_per_token * cells
    return {
        "picture": 3 * (size[0] * size[1] + cell_px + refined_px),
        "vision_load": int(geometry.vision_bytes * _factor(LOAD_FACTOR, geometry, is_signed)) + SESSION_BYTES,
        "vision": int(geometry.vision_bytes * _factor(HOLD_FACTOR, geometry, is_signed)) + SESSION_BYTES,
        "vision_work": 4 * patches * (2 * vision.mlp_width + 6 * vision.width) + 8 * vision.num_heads * patches**2,
        "visual_tokens": 2 * 4 * geometry.visual_tokens(plan) * language.width,
        "language": geometry.language_bytes,
        "language_load": int(geometry.max_copied_bytes * STAGED_SHARE) if is_copied else 0,
        "kv": {"q8_0": int(kv * 8.5 / 16), "f32": 2 * kv}.get(setup.kv, kv),
        "language_work": 4 * batch * (2 * language.mlp_width + 4 * language.width) + scores,
        "prompt": 4 * prompt_tokens * language.width,
    }


def _factor(table: Mapping[str, float], geometry: Geometry, is_signed: bool) -> float:
    if geometry.is_beside and "beside" in table and not is_signed:
        return table["beside"]
    return table["int8" if geometry.vision_kind == "int8" else "fp32"]


def _peaks(parts: Mapping[str, int], runtime: int, *, keep: bool) -> dict[str, int]:
    """Return the peak of every phase; sequential loading never holds both halves."""
    seen = runtime + parts["picture"]
    vision = parts["vision"] if keep else 0
    language = seen + max(vision, LEFT_BYTES) + parts["visual_tokens"] + parts["language"] + parts["kv"]
    prefill = language + parts["language_work"] + parts["prompt"]
    return {
        "load": max(seen + parts["vision_load"], language + parts["language_load"]),
        "encode": seen + parts["vision"] + parts["vision_work"] + parts["visual_tokens"],
        "prefill": prefill,
        "decode": prefill,
    }


def _seconds(
    geometry: Geometry, device: Device, plan: SlicePlan, prompt_tokens: int, answer_tokens: int, setup: Setup
) -> dict[str, float]:
    """Return the seconds of every phase at the device's own rates."""
    gain = device.int8_gain if geometry.vision_kind == "int8" else 1.0
    operations = sum(geometry.slice_operations(rows * columns) for rows, columns in plan.patches)
    is_repacked = geometry.is_repacked and setup.repack
    share = PREFILL_SHARE[is_repacked] * (device.int8_gain / 2 if is_repacked else 1.0)
    prefill = prompt_tokens * geometry.token_operations + geometry.output_operations
    attention = 4.0 * geometry.language.num_layers * geometry.language.width * prompt_tokens**2 / 2
    step_bytes = geometry.read_bytes + geometry.kv_bytes_per_token * (prompt_tokens + answer_tokens / 2)
    return {
        "load": 0.3 + (geometry.vision_bytes + geometry.language_bytes) / device.storage_bytes_per_second,
        "encode": operations / (device.flops_per_second * VISION_SHARE * gain),
        "prefill": (prefill + attention) / (device.flops_per_second * share),
        "decode": answer_tokens * step_bytes / (device.read_bytes_per_second * DECODE_SHARE),
    }


def _warned(plan: Plan, device: Device) -> Plan:
    """Add what a user should know before the machine swaps."""
    room = int(device.memory_bytes * SAFE_SHARE)
    if device.is_measured:
        from handlens.engine.memory import available_bytes

        room = min(room, available_bytes())
    warnings = tuple(
        f"{phase.name} needs {human(phase.peak_bytes)}, {device.name} has room for {human(room)}: it would swap; "
        "choose a smaller quantisation, fewer slices or a shorter answer"
        for phase in plan.phases
        if phase.peak_bytes > room
    )
    return replace(plan, warnings=warnings)
