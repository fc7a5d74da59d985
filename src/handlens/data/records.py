"""What one example is: a picture and everything that is true of it.

Boundary: numpy and pillow only; every part of the data pipeline reads and writes this type.
"""

from dataclasses import dataclass
from typing import Any

from PIL.Image import Image

Box = tuple[float, float, float, float]
"""``x0, y0, x1, y1`` in px of the final picture, after every bend and turn."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One question about the picture and its true answer."""

    task: str
    question: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Glyph:
    """One printed character; a space has the box of its advance."""

    char: str
    box: Box


@dataclass(frozen=True, kw_only=True)
class Line:
    """One printed line; ``text`` is the characters of ``glyphs`` in order."""

    text: str
    box: Box
    glyphs: tuple[Glyph, ...]


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One drawn shape; ``size`` is ``small`` or ``large``."""

    shape: str
    colour: str
    size: str
    box: Box


@dataclass(frozen=True, kw_only=True)
class Record:
    """A picture (RGB), what is printed and drawn on it, and a talk about it.

    ``table`` is rows of cells, the header first. ``facts`` holds what has no other place
    (fields of a label, the total of a receipt, the font); it is plain JSON.
    """

    key: str
    kind: str
    split: str
    language: str
    picture: Image
    lines: tuple[Line, ...]
    things: tuple[Thing, ...]
    table: tuple[tuple[str, ...], ...] | None
    turns: tuple[Turn, ...]
    facts: dict[str, Any]
    seed: int
    licence: str
    source: str
