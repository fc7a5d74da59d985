"""From the probability that a model gives its answer to the share of such answers that are right.

Boundary: numbers in, numbers out, and one small JSON file; knows no model and no picture. One line in log-odds per
case (Platt 1999): confidence = sigmoid(slope * logit(probability) + offset).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from handlens.errors import ModelError

FILE = "fields.json"
"""Name of the file in a bundle, beside its manifest; it is not part of what makes a bundle whole."""
FEWEST = 20
"""A case with fewer examples takes the line of the case it is a part of."""
MARGIN = 1e-6
"""Probabilities are kept so far from 0 and 1."""


@dataclass(frozen=True)
class PlattLine:
    """A straight line in log-odds; the default changes nothing."""

    slope: float = 1.0
    offset: float = 0.0

    def __call__(self, probability: float) -> float:
        """Return the calibrated probability.

        >>> round(PlattLine(1.0, 0.0)(0.25), 6), round(PlattLine(0.0, 0.0)(0.99), 6)
        (0.25, 0.5)
        """
        z = self.slope * logit(probability) + self.offset
        return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Lines by case; see ``case_of``."""

    lines: Mapping[str, PlattLine] = field(default_factory=dict)
    weights: str = ""
    """sha256 of the language file that it was made with; empty where it fits any."""
    made: Mapping[str, Any] = field(default_factory=dict)
    """How: command, data, date and how many examples each case had."""

    @property
    def is_fitted(self) -> bool:
        """True where it was made from data."""
        return bool(self.lines)

    def confidence(self, case: str, probability: float) -> float:
        """Return how likely an answer of this case is right."""
        line = self.lines.get(case) or self.lines.get(case.partition("/")[0]) or PlattLine()
        return line(probability)


def case_of(*, is_present: bool, looks: int, agree: bool) -> str:
    """Return the case of an answer: what it says, and what a second look said to it.

    >>> case_of(is_present=True, looks=2, agree=False)
    'value/other'
    """
    what = "value" if is_present else "absent"
    return f"{what}/{'once' if looks == 1 else 'same' if agree else 'other'}"


def fit(examples: Sequence[tuple[str, float, bool]]) -> dict[str, PlattLine]:
    """Return a line for every case, and for every family of cases (``value``), with enough examples.

    Args:
        examples: case, probability that the model gave, and whether the answer was right.
    """
    groups: dict[str, list[tuple[float, bool]]] = {}
    for case, probability, is_right in examples:
        for name in {case, case.partition("/")[0]}:
            groups.setdefault(name, []).append((probability, is_right))
    return {name: fit_line(*zip(*rows, strict=True)) for name, rows in sorted(groups.items()) if len(rows) >= FEWEST}


def fit_line(probabilities: Sequence[float], truths: Sequence[bool]) -> PlattLine:
    """Return the line of greatest likelihood; targets are drawn in as Platt does, so that it stays finite.

    Source: Platt 1999; Newton's steps and targets as in Lin, Lin and Weng 2007.
    """
    x = np.array([logit(p) for p in probabilities])
    is_true = np.array(truths, dtype=bool)
    num_true = int(is_true.sum())
    target = np.where(is_true, (num_true + 1) / (num_true + 2), 1 / (len(x) - num_true + 2))
    design = np.stack([x, np.ones_like(x)], axis=1)
    theta = np.array([0.0, math.log((num_true + 1) / (len(x) - num_true + 1))])
    # A weak pull of the slope to 0: one unit of log-likelihood per unit of slope.
    pull = np.array([1.0, 0.0])
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(design @ theta, -35, 35)))
        gradient = design.T @ (p - target) + pull * theta
        step = np.linalg.solve((design.T * (p * (1 - p))) @ design + np.diag(pull) + 1e-9 * np.eye(2), gradient)
        theta = theta - step * min(1.0, 5.0 / (float(np.abs(step).max()) + 1e-12))
        if float(np.abs(step).max()) < 1e-9:
            break
    return PlattLine(float(theta[0]), float(theta[1]))


def logit(probability: float) -> float:
    """Return the log-odds of a probability, kept from the infinite ends."""
    p = min(max(probability, MARGIN), 1 - MARGIN)
    return math.log(p / (1 - p))


def save(calibration: Calibration, file: Path) -> None:
    """Write a calibration."""
    lines = {
        case: {"slope": round(one.slope, 5), "offset": round(one.offset, 5)} for case, one in calibration.lines.items()
    }
    value = {"weights": calibration.weights, "made": dict(calibration.made), "lines": lines}
    file.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def load(file: Path) -> Calibration:
    """Read a calibration.

    Raises:
        ModelError: the file is damaged.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
        lines = {case: PlattLine(float(one["slope"]), float(one["offset"])) for case, one in value["lines"].items()}
        return Calibration(lines=lines, weights=str(value["weights"]), made=dict(value["made"]))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as cause:
        raise ModelError(
            f"{file} is no calibration ({type(cause).__name__}: {cause}); "
            "make it again with benchmarks/fields.py --write"
        ) from None


def calibration_of(folder: Path | None) -> Calibration:
    """Return what was made for the weights of a bundle: its own file, or the one that ships; else none.

    Raises:
        ModelError: the bundle's file is damaged.
    """
    if folder is None or not (folder / "manifest.json").is_file():
        return Calibration()
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    known = {facts["sha256"] for name, facts in manifest["files"].items() if name.endswith(".gguf")}
    for file in (folder / FILE, Path(__file__).parent / "nano.json"):
        if file.is_file() and (found := load(file)).weights in known:
            return found
    return Calibration()
