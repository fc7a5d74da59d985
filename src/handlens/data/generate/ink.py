"""Set text: glyph masks, advances and kerning become ink on a mask, with a box per character.

Boundary: one grey mask (0 paper, 255 ink) in flat page px; colour and camera come later.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import UInt8

from handlens.data.generate.fonts import Font, load_font, missing_characters
from handlens.data.generate.shaper import needs_shaping, shape
from handlens.data.records import Box, Glyph, Line

_LARGE_PX = 200
"""Size at which shapes are measured, so that rounding to whole px does not matter."""

# The median over the families here, in hundredths of an em. Reading each font's own table needs
# libraries that not every machine has, and pictures would depend on them.
_CLOSER = {
    '"': {6: "A"}, "'": {6: "A"}, ",": {4: "T"}, "-": {8: "Y", 6: "V", 4: "TX"}, ".": {4: "TV"}, "/": {4: "/"},
    "A": {8: "Y", 6: "\"'TV", 4: "*Wvwy"}, "D": {4: ",.Y"}, "F": {10: ",.", 6: "A", 4: "aeoé"}, "K": {6: "y", 4: "-O"},
    "L": {10: "\"'TY", 8: "VW", 4: "vwy"}, "O": {4: ",.Y"}, "P": {12: ",.", 6: "A"},
    "T": {10: ",.", 8: "Jacdegoqé", 6: "-Aswyz", 4: ":mnpruvx–üñ"}, "V": {10: ",.", 6: "-Aacdegoqé", 4: ":;mnprsuü"},
    "W": {10: ".", 8: ",", 6: "eoé", 4: "-Aagu"}, "X": {4: "-"},
    "Y": {10: ",.", 8: "-Aacdegoqé", 6: ":;Jmnpsuü", 4: "CGOrvwxyz–ñ"}, "f": {4: ",."}, "r": {8: ",."}, "v": {8: ",."},
    "w": {8: ".", 6: ","}, "y": {8: ",."},
}  # fmt: skip
_KERNING = {
    first + second: amount
    for first, groups in _CLOSER.items()
    for amount, seconds in groups.items()
    for second in seconds
}


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """The ink of one character: ``left`` and ``top`` are relative to the pen on the baseline."""

    mask: np.ndarray
    left: int
    top: int
    advance: float


@dataclass(frozen=True, kw_only=True, eq=False)  # one object per size: a cheap cache key
class Face:
    """A font at one size. ``height`` is the line box: ascent plus descent, px."""

    font: Font
    size_px: int
    ascent: int
    descent: int

    @property
    def height(self) -> int:
        """Line box, px."""
        return self.ascent + self.descent


@lru_cache(maxsize=4096)
def face_of(font: Font, size_px: int) -> Face:
    """Return the font at a size, with the ascent of its letters (not of its tallest accent)."""
    if needs_shaping(font.tall):
        spans = shape(font, size_px, font.tall).spans
        top, bottom = min(span[1] for span in spans), max(span[3] for span in spans)
    else:
        _, top, _, bottom = load_font(font, size_px).getbbox(font.tall, anchor="ls")
    return Face(font=font, size_px=size_px, ascent=round(-top), descent=round(bottom))


def size_for_x_height(font: Font, x_height_px: float) -> int:
    """Return the size in px at which a small x is as tall as asked.

    Twelve px of x-height is about the smallest that a 14 px patch reads well.
    """
    return max(7, round(x_height_px * _LARGE_PX / _large_x_height(font)))


@lru_cache(maxsize=1024)
def _large_x_height(font: Font) -> float:
    _, top, _, _ = load_font(font, _LARGE_PX).getbbox("x", anchor="ls")
    return max(1.0, -top)


@lru_cache(maxsize=100_000)
def stamp(face: Face, char: str) -> Stamp:
    """Draw one character once; every later use is a copy of this mask."""
    font = load_font(face.font, face.size_px)
    core, (left, top) = font.getmask2(char, "L", anchor="ls")
    width, height = core.size
    ink = np.frombuffer(bytes(core), np.uint8).reshape(height, width)
    advance, box = _advance(face, char), core.getbbox()
    if box is None:
        return Stamp(mask=ink[:0, :0], left=0, top=0, advance=advance)
    x, y, right, bottom = box
    return Stamp(mask=ink[y:bottom, x:right].copy(), left=int(left) + x, top=int(top) + y, advance=advance)


@lru_cache(maxsize=200_000)  # apart from the ink: a layout tries sizes that nothing is printed in
def _advance(face: Face, char: str) -> float:
    return load_font(face.font, face.size_px).getlength(char)


def kern(font: Font, pair: str) -> float:
    """Return how much closer two characters stand than their advances say, in ems.

    >>> from handlens.data.generate.fonts import FONTS
    >>> kern(FONTS[0], "AV"), kern(FONTS[0], "11")
    (-0.06, 0.0)
    """
    return 0.0 if font.style == "mono" else -_KERNING.get(pair, 0) / 100


@lru_cache(maxsize=8192)  # a layout asks for the same widths while it looks for its size
def pens(face: Face, text: str, tracking_px: float = 0.0) -> tuple[float, ...]:
    """Return the pen before each character and, last, after the final one.

    In a joined script characters have no pens of their own: all but the last are where the
    reading has come to, and tracking is not applied.
    """
    if needs_shaping(text):
        shaped = shape(face.font, face.size_px, text)
        share = shaped.width / len(text)
        return tuple(share * i for i in range(len(text) + 1))
    size, font, at, out, before = face.size_px, face.font, 0.0, [0.0], ""
    for char in text:
        if before + char in _KERNING:
            at += kern(font, before + char) * size
            out[-1] = at
        at += _advance(face, char) + tracking_px
        out.append(at)
        before = char
    return tuple(out)


def text_width(face: Face, text: str, tracking_px: float = 0.0) -> float:
    """Return how far the pen moves, px."""
    return pens(face, text, tracking_px)[-1]


def can_print(font: Font, text: str) -> bool:
    """True where the font has every character of the text."""
    missing = missing_characters(font)
    return not missing or missing.isdisjoint(text)


def put_text(
    mask: UInt8[np.ndarray, "height width"],
    face: Face,
    text: str,
    x_px: float,
    baseline_px: float,
    *,
    tracking_px: float = 0.0,
) -> Line:
    """Add ink for one line to ``mask`` and return where each character landed.

    Ink outside the mask is cut off; a layout must leave room.
    """
    if needs_shaping(text):
        return _put_shaped(mask, face, text, x_px, baseline_px)
    height, width = mask.shape
    base = round(baseline_px)
    at = pens(face, text, tracking_px)
    glyphs = []
    for i, char in enumerate(text):
        ink = stamp(face, char)
        high, wide = ink.mask.shape
        if not high:
            box = (x_px + at[i], float(base - face.ascent), x_px + max(at[i] + 1, at[i + 1]), float(base))
            glyphs.append(Glyph(char=char, box=box))
            continue
        left, top = round(x_px + at[i]) + ink.left, base + ink.top
        x0, y0, x1, y1 = max(0, left), max(0, top), min(width, left + wide), min(height, top + high)
        if x1 > x0 and y1 > y0:
            part = mask[y0:y1, x0:x1]
            np.maximum(part, ink.mask[y0 - top : y1 - top, x0 - left : x1 - left], out=part)
        glyphs.append(Glyph(char=char, box=(float(left), float(top), float(left + wide), float(top + high))))
    return Line(text=text, box=around([g.box for g in glyphs]), glyphs=tuple(glyphs))


def _put_shaped(mask: np.ndarray, face: Face, text: str, x_px: float, baseline_px: float) -> Line:
    """Add ink for a line of a joined script; every character has the box of its cluster."""
    height, width = mask.shape
    pen, base = round(x_px), round(baseline_px)
    shaped = shape(face.font, face.size_px, text)
    for mark in shaped.marks:
        left, top = pen + mark.left, base + mark.top
        high, wide = mark.mask.shape
        x0, y0, x1, y1 = max(0, left), max(0, top), min(width, left + wide), min(height, top + high)
        if x1 > x0 and y1 > y0:
            part = mask[y0:y1, x0:x1]
            np.maximum(part, mark.mask[y0 - top : y1 - top, x0 - left : x1 - left], out=part)
    glyphs = tuple(
        Glyph(char=char, box=(float(pen + x0), float(base + y0), float(pen + x1), float(base + y1)))
        for char, (x0, y0, x1, y1) in zip(text, shaped.spans, strict=True)
    )
    return Line(text=text, box=around([g.box for g in glyphs]), glyphs=glyphs)


def around(boxes: list[Box]) -> Box:
    """Return the smallest box that holds all boxes.

    >>> around([(0.0, 0.0, 2.0, 1.0), (1.0, -1.0, 3.0, 1.0)])
    (0.0, -1.0, 3.0, 1.0)
    """
    x0s, y0s, x1s, y1s = zip(*boxes, strict=True)
    return min(x0s), min(y0s), max(x1s), max(y1s)
