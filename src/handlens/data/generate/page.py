"""What a drawing function hands back, and how it picks words for its questions.

Boundary: no layout, no pixels; the record's key and seed are added by ``generate``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from PIL.Image import Image

from handlens.data.records import Line, Thing, Turn


@dataclass(frozen=True, kw_only=True)
class Page:
    """A drawn picture with everything that is true of it."""

    kind: str
    picture: Image
    talk: Callable[[Random], tuple[Turn, ...]]
    """Draws questions with their answers; every call may draw others."""
    lines: tuple[Line, ...] = ()
    things: tuple[Thing, ...] = ()
    table: tuple[tuple[str, ...], ...] | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def ask(rng: Random, task: str, wordings: Sequence[str], answer: str, **names: str) -> Turn:
    """Return a turn with one of the wordings, its ``{names}`` filled in."""
    return Turn(task=task, question=rng.choice(wordings).format(**names), answer=answer)


Colour = tuple[int, int, int]
Px = int | float
"""A length or place on a page; a layout counts in whole px where it can."""


def pick_colours(rng: Random, level: float) -> tuple[Colour, Colour]:
    """Return ink and paper; dark on light in five of six, always at least 90 grey steps apart."""
    if level < 0.05 or rng.random() < 0.3:
        return (rng.randint(0, 30),) * 3, (rng.randint(240, 255),) * 3
    light = _tint(rng, 200, 255, 30)
    dark = _tint(rng, 0, 90, 60)
    return (light, dark) if rng.random() < 0.24 else (dark, light)


def _tint(rng: Random, low: int, high: int, spread: int) -> Colour:
    value = rng.randint(low, high)
    mix = (value + rng.randint(-spread, spread) for _ in range(3))
    red, green, blue = (min(255, max(0, v)) for v in mix)
    return red, green, blue
