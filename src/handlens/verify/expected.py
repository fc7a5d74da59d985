"""What a case should give: everything, or samples of it, and how far a trace is from that.

Boundary: numpy only. A live model is expected whole; a recorded one by hashes, samples and norms.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from handlens.verify.case import LAST_ROWS, Trace


@dataclass(frozen=True)
class Sample:
    """Numbers of a list of arrays."""

    values: np.ndarray
    index: np.ndarray | None = None
    """Per number the array in the list, then the place in it; None: all numbers in order."""

    def gap(self, parts: Sequence[np.ndarray]) -> float:
        """Return the largest difference; infinite where shapes do not fit or a number is none."""
        found = self.of(parts)
        if found is None or found.shape != self.values.shape:
            return float("inf")
        gap = np.abs(found.astype(np.float64) - self.values).max(initial=0.0)
        return float(gap) if np.isfinite(gap) else float("inf")

    def of(self, parts: Sequence[np.ndarray]) -> np.ndarray | None:
        """Return the numbers at the same places; None where one does not exist."""
        if self.index is None:
            return np.concatenate([part.reshape(-1) for part in parts]) if parts else np.zeros(0)
        found = np.empty(len(self.index), dtype=np.float64)
        for number, part in enumerate(parts):
            here = self.index[:, 0] == number
            places = self.index[here, 1:]
            if places.shape[1] != part.ndim or (places >= np.asarray(part.shape)).any():
                return None
            found[here] = part[tuple(places.T)]
        return found if (self.index[:, 0] < len(parts)).all() else None

    @property
    def size(self) -> float:
        """Root mean square of the numbers, at least 1: the unit of a tolerance."""
        return max(1.0, float(np.sqrt(np.mean(np.square(self.values, dtype=np.float64))))) if self.values.size else 1.0


def whole(parts: Sequence[np.ndarray]) -> Sample:
    """Return a sample of all numbers."""
    return Sample(np.concatenate([part.reshape(-1) for part in parts]))


def norms_of(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return the L2 norm of every array."""
    return np.asarray([np.sqrt(np.square(part, dtype=np.float64).sum()) for part in parts], dtype=np.float32)


def hash_of(part: np.ndarray) -> str:
    """Return the sha256 of the little-endian float32 bytes."""
    return hashlib.sha256(np.ascontiguousarray(part, dtype="<f4").tobytes()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What every stage of one case should give; None where it is not known."""

    grids: list[tuple[int, int]] | None = None
    num_slices: int | None = None
    pixel_hashes: list[str] | None = None
    pixels: Sample | None = None
    positions: np.ndarray | None = None
    vision: Sample | None = None
    vision_norms: np.ndarray | None = None
    visual: Sample | None = None
    visual_norms: np.ndarray | None = None
    ids: np.ndarray | None = None
    last_logits: np.ndarray | None = None
    logits: Sample | None = None
    greedy: list[int] | None = None
    margins: list[float] | None = None

    @classmethod
    def of(cls, trace: Trace) -> "Expected":
        """Expect everything that a live model computed."""
        return cls(
            grids=trace.grids,
            num_slices=trace.num_slices,
            pixel_hashes=None if trace.pixels is None else [hash_of(part) for part in trace.pixels],
            pixels=None if trace.pixels is None else whole(trace.pixels),
            positions=trace.positions,
            vision=None if trace.vision is None else whole(trace.vision),
            visual=None if trace.visual is None else whole(trace.visual),
            ids=trace.ids,
            last_logits=None if trace.logits is None else trace.logits[-LAST_ROWS:],
            greedy=trace.greedy,
            margins=trace.margins,
        )

    @classmethod
    def recorded(cls, fields: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> "Expected":
        """Expect what ``expected.json`` and ``expected.safetensors`` say about one case."""
        part = f"{fields['name']}."
        known = {name.removeprefix(part): values for name, values in tensors.items() if name.startswith(part)}
        hashes = fields.get("pixel_sha256")
        tokens = known.get("tokens")
        return cls(
            grids=None if "tgt_sizes" not in fields else [(int(h), int(w)) for h, w in fields["tgt_sizes"]],
            num_slices=fields.get("n_slices"),
            pixel_hashes=[hashes] if isinstance(hashes, str) else hashes,
            pixels=_sampled(known, "pixel"),
            positions=known.get("vit_position_ids"),
            vision=_sampled(known, "vision"),
            vision_norms=known.get("vision_norm"),
            visual=_sampled(known, "tokens") if tokens is None else Sample(tokens.reshape(-1)),
            visual_norms=known.get("tokens_norm"),
            ids=np.asarray(fields["input_ids"], dtype=np.int64),
            last_logits=known.get("logits_last8"),
            logits=_sampled(known, "logits", in_one=True),
            greedy=[int(token) for token in fields["greedy"]] if "greedy" in fields else None,
            margins=[float(gap) for gap in known["greedy_margin"]] if "greedy_margin" in known else None,
        )


def _sampled(known: Mapping[str, np.ndarray], name: str, *, in_one: bool = False) -> Sample | None:
    """Return a recorded sample; ``in_one`` says that the places lie in one array."""
    if f"{name}_idx" not in known or f"{name}_val" not in known:
        return None
    index = np.asarray(known[f"{name}_idx"]).astype(np.int64)
    if in_one:
        index = np.concatenate([np.zeros((len(index), 1), dtype=np.int64), index], axis=1)
    return Sample(np.asarray(known[f"{name}_val"]), index)
