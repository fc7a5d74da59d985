"""Fill rows of fixed length with whole samples, limited by tokens and by slices.

Boundary: lengths in, rows out; numpy only. ``model/packing.py`` keeps the samples of a row from seeing each other.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from handlens.data.render import Rendered
from handlens.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class Length:
    """How much room a sample takes."""

    key: str
    tokens: int
    """Visual tokens included."""
    slices: int


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Room of one row."""

    tokens: int = 2048
    slices: int = 32

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.slices < 1:
            raise SettingError(f"a row of {self.tokens} tokens and {self.slices} slices holds nothing; 1 is the least")

    def holds(self, length: Length) -> bool:
        """True when a row of its own is enough for a sample."""
        return length.tokens <= self.tokens and length.slices <= self.slices


@dataclass(frozen=True, kw_only=True)
class Packing:
    """Rows as places in the sequence that was packed, and what fits no row."""

    rows: tuple[tuple[int, ...], ...]
    too_long: tuple[int, ...]
    fill: float
    """Tokens of the samples over tokens of the rows."""
    slice_fill: float

    def to_json(self) -> dict[str, Any]:
        """Return the figures."""
        return {
            "rows": len(self.rows), "packed": sum(map(len, self.rows)), "too_long": len(self.too_long),
            "fill": round(self.fill, 5), "slice_fill": round(self.slice_fill, 5),
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PackedRow:
    """Several conversations end to end, as one training row."""

    ids: Int64[np.ndarray, "tokens"]
    positions: Int64[np.ndarray, "tokens"]
    """Of each token in its own conversation."""
    is_visual: Bool[np.ndarray, "tokens"]
    is_target: Bool[np.ndarray, "tokens"]
    lengths: tuple[int, ...]
    """Tokens of each conversation; the keyword ``segment_lengths`` of the attention."""


def pack(lengths: Sequence[Length], budget: Budget | None = None) -> Packing:
    """Return rows that hold every sample once, longest first into the tightest row that has room.

    >>> pack([Length(key=str(n), tokens=n, slices=1) for n in (3, 5, 4, 2)], Budget(tokens=7)).rows
    ((1, 3), (2, 0))
    """
    budget = budget or Budget()
    order = sorted(range(len(lengths)), key=lambda place: (-lengths[place].tokens, -lengths[place].slices, place))
    rows: list[list[int]] = []
    slices_left: list[int] = []
    room: list[tuple[int, int]] = []  # (tokens left, row), sorted
    too_long = []
    for place in order:
        length = lengths[place]
        if not budget.holds(length):
            too_long.append(place)
            continue
        at = bisect_left(room, (length.tokens, -1))
        while at < len(room) and slices_left[room[at][1]] < length.slices:
            at += 1
        if at < len(room):
            tokens_left, row = room.pop(at)
        else:
            tokens_left, row = budget.tokens, len(rows)
            rows.append([])
            slices_left.append(budget.slices)
        rows[row].append(place)
        slices_left[row] -= length.slices
        if tokens_left > length.tokens:
            insort(room, (tokens_left - length.tokens, row))
    packed = [lengths[place] for row in rows for place in row]
    size = max(len(rows), 1)
    return Packing(
        rows=tuple(map(tuple, rows)), too_long=tuple(sorted(too_long)),
        fill=sum(length.tokens for length in packed) / (size * budget.tokens),
        slice_fill=sum(length.slices for length in packed) / (size * budget.slices),
    )  # fmt: skip


def pack_windows(
    lengths: Iterable[Length], budget: Budget | None = None, *, window: int = 512
) -> Iterator[tuple[Length, ...]]:
    """Yield rows of a stream that may never end: each window is packed for itself, whole rows first.

    The rows of a window that are less than 90 % full wait for the next one. What fits no row is left out.
    """
    budget = budget or Budget()
    waiting: list[Length] = []
    for length in lengths:
        waiting.append(length)
        if len(waiting) >= window:
            yield from _full_rows(waiting, budget)
    packing = pack(waiting, budget)
    for row in packing.rows:
        yield tuple(waiting[place] for place in row)


def lay_end_to_end(rendered: Sequence[Rendered]) -> PackedRow:
    """Return one row of several conversations."""
    return PackedRow(
        ids=np.concatenate([one.ids for one in rendered]),
        positions=np.concatenate([np.arange(len(one.ids)) for one in rendered]),
        is_visual=np.concatenate([one.is_visual for one in rendered]),
        is_target=np.concatenate([one.is_target for one in rendered]),
        lengths=tuple(len(one.ids) for one in rendered),
    )


def _full_rows(waiting: list[Length], budget: Budget) -> list[tuple[Length, ...]]:
    """Take the rows that are nearly full out of ``waiting``; at least one, so that it always moves on."""
    packing = pack(waiting, budget)
    full = [row for row in packing.rows if sum(waiting[place].tokens for place in row) >= 0.9 * budget.tokens]
    full = full or list(packing.rows[:1])
    gone = {place for row in full for place in row} | set(packing.too_long)
    rows = [tuple(waiting[place] for place in row) for row in full]
    waiting[:] = [length for place, length in enumerate(waiting) if place not in gone]
    return rows
