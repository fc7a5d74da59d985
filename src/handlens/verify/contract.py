"""Compare a trace with what is expected, stage by stage, and name the likely cause of the first difference.

Boundary: numbers in, outcomes out; knows no model and no file.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from handlens.families import Family
from handlens.verify.case import STAGES, Trace
from handlens.verify.cause import likely_cause
from handlens.verify.expected import Expected, Sample, hash_of, norms_of


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Differences that rounding explains, for numbers of root mean square 1."""

    visual: float
    logit: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One stage of one case."""

    case: str
    stage: str
    agrees: bool | None
    """None: one of the two does not show this stage."""
    gap: float = 0.0
    """Largest difference, or how many whole numbers differ."""
    tolerance: float = 0.0
    detail: str = ""
    cause: str = ""
    """Set where the two differ."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values; an infinite gap (shapes differ) is null."""
        gap = self.gap if np.isfinite(self.gap) else None
        return {
            "stage": self.stage,
            "agrees": self.agrees,
            "gap": gap,
            "tolerance": self.tolerance,
            "detail": self.detail,
            "cause": self.cause,
        }

    def __str__(self) -> str:
        gap = f"{self.gap:.2g}" if np.isfinite(self.gap) else "another shape"
        return f"{self.case}: {self.stage} differ by {gap} (allowed {self.tolerance:.2g}); {self.detail}".rstrip("; ")


@dataclass(frozen=True)
class Found:
    """A measured gap, or how many whole numbers differ."""

    gap: float | int
    tolerance: float = 0.0
    detail: str = ""


def compare_case(
    name: str, expected: Expected, trace: Trace, noise: Noise, family: Family, kinds: str
) -> list[Outcome]:
    """Return one outcome per stage.

    Args:
        name: of the case.
        expected: what the reference gives.
        trace: what the candidate computed.
        noise: what rounding explains.
        family: rules of the candidate, for the likely cause.
        kinds: engines that computed, for the likely cause.
    """
    outcomes = []
    for stage, measure in _MEASURES.items():
        found = measure(expected, trace, noise)
        if found is None:
            detail = trace.notes.get(stage, "one side does not show it")
            outcomes.append(Outcome(case=name, stage=stage, agrees=None, detail=detail))
            continue
        agrees = found.gap <= found.tolerance
        cause = "" if agrees else likely_cause(stage, float(found.gap), family, kinds)
        outcomes.append(
            Outcome(
                case=name,
                stage=stage,
                agrees=agrees,
                gap=float(found.gap),
                tolerance=found.tolerance,
                detail=found.detail,
                cause=cause,
            )
        )
    return outcomes


def _grid(expected: Expected, trace: Trace, noise: Noise) -> Found | None:
    if expected.grids is not None and trace.grids is not None:
        differing = [
            (ours, theirs) for ours, theirs in zip(trace.grids, expected.grids, strict=False) if ours != theirs
        ]
        gap = len(differing) + abs(len(trace.grids) - len(expected.grids))
        if differing:
            (ours, theirs) = differing[0]
            return Found(
                gap, detail=f"a slice of {theirs[0]}x{theirs[1]} patches is expected, {ours[0]}x{ours[1]} came"
            )
        return Found(gap, detail=f"{len(expected.grids)} slices expected, {len(trace.grids)} came" if gap else "")
    if expected.num_slices is None or trace.num_slices is None:
        return None
    gap = abs(expected.num_slices - trace.num_slices)
    return Found(gap, detail=f"{expected.num_slices} slices expected, {trace.num_slices} came" if gap else "")


def _pixels(expected: Expected, trace: Trace, noise: Noise) -> Found | None:
    if expected.pixel_hashes is None or trace.pixels is None:
        return None
    if [hash_of(part) for part in trace.pixels] == expected.pixel_hashes:
        return Found(0.0)
    parts = trace.pixels
    if expected.pixels is not None and expected.pixels.index is not None and parts[0].ndim == 4:
        parts = list(parts[0])
    gap = expected.pixels.gap(parts) if expected.pixels else float("inf")
    return Found(max(gap, 1e-9), detail="pixels must be equal bit by bit; the hash of a slice differs")


def _positions(expected: Expected, trace: Trace, noise: Noise) -> Found | None:
    if expected.positions is None or trace.positions is None:
        return None
    if expected.positions.shape != trace.positions.shape:
        return Found(float("inf"), detail=f"{len(expected.positions)} patches expected, {len(trace.positions)} came")
    differing = np.flatnonzero(expected.positions != trace.positions)
    if not len(differing):
        return Found(0)
    place = int(differing[0])
    return Found(
        len(differing),
        detail=f"patch {place} has row {trace.positions[place]}, row {expected.positions[place]} is expected",
    )


def _vision(expected: Expected, trace: Trace, noise: Noise) -> Found | None:
    return _floats(expected.vision, expected.vision_norms, trace.vision, noise.visual)


def _visual(expected: Expected, trace: Trace, noise: Noise) -> Found | None:
    return _floats(expected.visual, expected.visual_norms, trace.visual, noise.visual)


def _floats(
    sample: Sample | None, norms: np.ndarray | None, parts: list[np.ndarray] | None, noise: float
) -> Found | None:
    """Compare a sample, and the norms, which see every number."""
    if sample is None or parts is None:
        return None
    tolerance = noise * sample.size
    gap = sample.gap(parts)
    if norms is None or len(norms) != len(parts) or gap > tolerance:
        return Found(gap, tolerance)
    by_norm = float(np.abs(norms_of(parts) / norms - 1).max(initial=0.0))
    if by_norm > noise:
        return Found(max(gap, by_norm * sample.size), tolerance, f"the norm of a slice differs by {by_norm:.2%}")
    return Found(gap, tolerance)


def _ids(expected: Expected, trace: Trace, noise: Noise) -> Found | None:
    if expected.ids is None or trace.ids is None:
        return None
    theirs, ours = expected.ids, trace.ids
    place = next((at for at, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), None)
    if place is not None:
        differing = sum(one != other for one, other in zip(ours, theirs, strict=False)) + abs(len(ours) - len(theirs))
        return Found(int(differing), detail=f"place {place} has id {ours[place]}, {theirs[place]} is expected")
    gap = abs(len(ours) - len(theirs))
    return Found(gap, detail=f"{len(theirs)} ids expected, {len(ours)} came" if gap else "")


def _logits(expected: Expected, trace: Trace, noise: Noise) -> Found | None:
    if expected.last_logits is None or trace.logits is None:
        return None
    rows = min(len(expected.last_logits), len(trace.logits))
    last = Sample(expected.last_logits[-rows:].reshape(-1))
    tolerance = noise.logit * last.size
    gap = last.gap([trace.logits[-rows:]])
    if expected.logits is not None and trace.ids is not None and len(trace.logits) == len(trace.ids):
        gap = max(gap, expected.logits.gap([trace.logits]))
    return Found(gap, tolerance)


def _greedy(expected: Expected, trace: Trace, noise: Noise) -> Found | None:
    if expected.greedy is None or trace.greedy is None:
        return None
    place = next((at for at, (a, b) in enumerate(zip(trace.greedy, expected.greedy, strict=False)) if a != b), None)
    if place is None:
        return Found(0)
    margin = (expected.margins or trace.margins or [float("inf")] * (place + 1))[place]
    unit = 1.0 if expected.last_logits is None else Sample(expected.last_logits.reshape(-1)).size
    tolerance = 2 * noise.logit * unit
    detail = (
        f"token {place} is {trace.greedy[place]}, {expected.greedy[place]} is expected, which leads by {margin:.2g}"
    )
    # A choice between two that are closer than rounding moves them is no difference.
    return Found(0 if margin <= tolerance else len(expected.greedy) - place, detail=detail)


_MEASURES: dict[str, Callable[[Expected, Trace, Noise], Found | None]] = dict(
    zip(STAGES, (_grid, _pixels, _positions, _vision, _visual, _ids, _logits, _greedy), strict=True)
)


def first_difference(outcomes: list[Outcome]) -> Outcome | None:
    """Return the earliest stage that differs in any case: what stands before it is equal everywhere."""

    def differing() -> Iterator[Outcome]:
        for stage in STAGES:
            yield from (outcome for outcome in outcomes if outcome.stage == stage and outcome.agrees is False)

    return next(differing(), None)
