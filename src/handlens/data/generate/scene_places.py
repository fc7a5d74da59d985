"""Where things of a scene lie: ninths of the picture and sides of each other.

Boundary: boxes in, places out; no language.
"""

from handlens.data.records import Thing

SIDES = ("left of", "right of", "above", "below")
CLEAR = 0.12
"""Share of the picture by which two things must differ before a side is beyond doubt."""


def relations(things: tuple[Thing, ...], width_px: int, height_px: int) -> list[list[int | str]]:
    """Return ``[one, side, two]`` by number for every side that is beyond doubt; opposites are left out."""
    pairs = [(i, j) for i in range(len(things)) for j in range(len(things)) if i != j]
    return [
        [i, side, j]
        for i, j in pairs
        for side in ("left of", "above")
        if offset(things[i], things[j], side, width_px, height_px) > CLEAR
    ]


def place(thing: Thing, width_px: int, height_px: int) -> str:
    """Return the ninth of the picture in which the middle of the thing lies."""
    row = ("top", "", "bottom")[third(thing, 1, height_px)]
    column = ("left", "", "right")[third(thing, 0, width_px)]
    return f"{row} {column}".strip() or "center"


def middle(thing: Thing) -> tuple[float, float]:
    """Return the middle of the box."""
    x0, y0, x1, y1 = thing.box
    return (x0 + x1) / 2, (y0 + y1) / 2


def third(thing: Thing, axis: int, side_px: int) -> int:
    """Return 0, 1 or 2: in which third of a side the middle lies."""
    return min(2, max(0, int(middle(thing)[axis] * 3 / side_px)))


def is_sure(thing: Thing, width_px: int, height_px: int) -> bool:
    """True where the middle is well inside one ninth of the picture."""
    x, y = middle(thing)
    shares = (x / width_px, y / height_px)
    return all(abs(share - border) > 0.045 for share in shares for border in (1 / 3, 2 / 3))


def offset(one: Thing, two: Thing, side: str, width_px: int, height_px: int) -> float:
    """Return how far ``one`` lies on that side of ``two``, as a share of the picture."""
    (x1, y1), (x2, y2) = middle(one), middle(two)
    return {
        "left of": (x2 - x1) / width_px, "right of": (x1 - x2) / width_px,
        "above": (y2 - y1) / height_px, "below": (y1 - y2) / height_px,
    }[side]  # fmt: skip


def lone(things: tuple[Thing, ...], field: str) -> list[Thing]:
    """Return the things whose value of a field no other thing has."""
    values = [getattr(thing, field) for thing in things]
    return [t for t, value in zip(things, values, strict=True) if values.count(value) == 1]


def is_only(thing: Thing, things: tuple[Thing, ...]) -> bool:
    """True where no other thing has its colour and shape."""
    return sum((t.colour, t.shape) == (thing.colour, thing.shape) for t in things) == 1


def is_only_shape(thing: Thing, things: tuple[Thing, ...]) -> bool:
    """True where no other thing has its shape."""
    return sum(t.shape == thing.shape for t in things) == 1
