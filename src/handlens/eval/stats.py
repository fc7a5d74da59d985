"""How sure a score is: intervals of one model, tests of a difference between two.

Boundary: numbers in, numbers out. Units (a picture, a circular group) are drawn whole, so questions that belong
together are never treated as independent.

Sources: Wilson 1927; Efron 1979 (percentile bootstrap); McNemar 1947, exact form; sign-flip permutation, Fisher 1935.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from handlens.eval.scorers import wilson

Unit = TypeVar("Unit")
DRAWS = 1000
SEED = 20260101
"""One seed for every interval, so that a report is the same each time it is made."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A 95 % interval and how it was made: ``wilson``, ``bootstrap of N units`` or ``none``."""

    low: float
    high: float
    method: str


def share_interval(scores: Sequence[float], *, scale: float = 1.0) -> Interval:
    """Return the interval of a mean: Wilson where every score is 0 or 1, else a bootstrap."""
    if all(score in (0.0, 1.0) for score in scores):
        low, high = wilson(round(sum(scores)), len(scores))
        return Interval(low=low * scale, high=high * scale, method="wilson")
    values = np.asarray(scores, np.float64)
    means = _drawn_means(values) * scale
    return _percentiles(means, len(values))


def bootstrap(units: Sequence[Unit], statistic: Callable[[Sequence[Unit]], float], *, draws: int = DRAWS) -> Interval:
    """Return the percentile interval of a statistic over units drawn with replacement."""
    if len(units) < 2:
        return Interval(low=math.nan, high=math.nan, method="none")
    rng = np.random.default_rng(SEED)
    places = rng.integers(0, len(units), (draws, len(units)))
    return _percentiles(np.array([statistic([units[place] for place in row]) for row in places]), len(units))


def _drawn_means(values: Float[np.ndarray, "count"]) -> Float[np.ndarray, "n"]:
    rng = np.random.default_rng(SEED)
    return np.array([values[rng.integers(0, len(values), len(values))].mean() for _ in range(DRAWS)])


def _percentiles(drawn: np.ndarray, count: int) -> Interval:
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return Interval(low=math.nan, high=math.nan, method="none")
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(low=float(low), high=float(high), method=f"bootstrap of {count} units")


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One model minus the other on the same questions."""

    value: float
    interval: Interval
    p: float
    """Two-sided probability of a difference this large if the two were alike."""
    test: str
    first_only: int
    """Units on which only the first scores higher."""
    second_only: int


def compare_units(first: Sequence[float], second: Sequence[float], *, scale: float = 1.0) -> Difference:
    """Return the difference of two means over the same units.

    McNemar's exact test where every score is 0 or 1, else a sign-flip permutation test with 10,000 draws.
    """
    one, two = np.asarray(first, np.float64), np.asarray(second, np.float64)
    gaps = one - two
    better, worse = int((gaps > 0).sum()), int((gaps < 0).sum())
    is_binary = set(np.unique(np.concatenate([one, two]))) <= {0.0, 1.0}
    p = mcnemar(better, worse) if is_binary else sign_flip(gaps)
    return Difference(
        value=float(gaps.mean()) * scale, interval=_percentiles(_drawn_means(gaps) * scale, len(gaps)), p=p,
        test="McNemar, exact" if is_binary else "sign-flip permutation", first_only=better, second_only=worse,
    )  # fmt: skip


def compare_statistic(
    first: Sequence[Unit], second: Sequence[Unit], statistic: Callable[[Sequence[Unit]], float]
) -> tuple[float, Interval, float]:
    """Return the difference of a statistic that is no mean, its interval, and p by swapping units at random."""
    rng = np.random.default_rng(SEED)
    pairs = list(zip(first, second, strict=True))
    seen = statistic(first) - statistic(second)
    drawn, swapped = [], []
    for _ in range(DRAWS):
        chosen = [pairs[place] for place in rng.integers(0, len(pairs), len(pairs))]
        drawn.append(statistic([one for one, _ in chosen]) - statistic([two for _, two in chosen]))
        flips = rng.integers(0, 2, len(pairs))
        mixed = [pair if flip else pair[::-1] for pair, flip in zip(pairs, flips, strict=True)]
        swapped.append(statistic([one for one, _ in mixed]) - statistic([two for _, two in mixed]))
    extreme = sum(abs(value) >= abs(seen) - 1e-12 for value in swapped)
    return seen, _percentiles(np.array(drawn), len(pairs)), (extreme + 1) / (DRAWS + 1)


def mcnemar(first_only: int, second_only: int) -> float:
    """Return the two-sided exact p of the discordant pairs.

    >>> mcnemar(5, 0)
    0.0625
    """
    total, fewer = first_only + second_only, min(first_only, second_only)
    if not total:
        return 1.0
    log_half = total * math.log(0.5)
    logs = [
        math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) + log_half for k in range(fewer + 1)
    ]
    return min(1.0, round(2 * math.fsum(map(math.exp, logs)), 12))


def sign_flip(gaps: Float[np.ndarray, "count"], *, draws: int = 10_000) -> float:
    """Return p of a mean gap under random signs; all sign patterns where there are few."""
    gaps = gaps[gaps != 0]
    if not len(gaps):
        return 1.0
    seen = abs(gaps.sum())
    if len(gaps) <= 12:
        patterns = 1 - 2 * ((np.arange(2 ** len(gaps))[:, None] >> np.arange(len(gaps))) & 1)
        return float((np.abs(patterns @ gaps) >= seen - 1e-12).mean())
    rng = np.random.default_rng(SEED)
    hits = sum(abs((rng.integers(0, 2, len(gaps)) * 2 - 1) @ gaps) >= seen - 1e-12 for _ in range(draws))
    return float((hits + 1) / (draws + 1))
