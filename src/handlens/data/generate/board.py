"""A page in colours: boxes, lines and text are put on it, then it is photographed.

Boundary: places what it is given; what it says is the business of each kind. In a language that
is read from the right, every x counts from the right edge, so that one layout serves both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from handlens.data.generate.fonts import Font
from handlens.data.generate.ink import Face, around, face_of, put_text, text_width
from handlens.data.generate.language import Language
from handlens.data.generate.page import Colour, Px
from handlens.data.generate.photo import choose_warp, grain_tile, is_clean, move_boxes, move_lines, spoil, warp_image
from handlens.data.records import Box, Glyph, Line

BLACK: Colour = (20, 20, 24)
WHITE: Colour = (255, 255, 255)
_SMALLEST_PX = 9


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A photographed board: picture, lines and boxes where they landed."""

    picture: Image.Image
    lines: tuple[Line, ...]
    boxes: tuple[Box, ...]
    clean: bool


class Board:
    """A page of ``width`` x ``height`` px that remembers every text put on it."""

    def __init__(self, width: int, height: int, paper: Colour, *, is_rtl: bool = False) -> None:
        self.width, self.height, self.paper, self.is_rtl = width, height, paper, is_rtl
        self.picture = Image.new("RGB", (width, height), paper)
        self.pen = ImageDraw.Draw(self.picture)
        self.lines: list[Line] = []

    def text(
        self, face: Face, text: str, x: Px, baseline: Px, colour: Colour = BLACK, *,
        anchor: str = "left", most_px: Px = 1e9, keep: bool = True,
    ) -> Line:  # fmt: skip
        """Print one line at ``x`` (its ``anchor`` left, middle or right), smaller where it must be.

        Raises:
            Overfull: wider than ``most_px`` at every readable size, or beyond the edge of the page.
        """
        face = fit(face, text, most_px)
        wide = text_width(face, text)
        if self.is_rtl:
            x, anchor = self.width - x, {"left": "right", "right": "left"}.get(anchor, anchor)
        left = x - wide * {"left": 0.0, "middle": 0.5, "right": 1.0}[anchor]
        if left < 1 or left + wide > self.width - 1 or baseline + face.descent > self.height:
            raise Overfull(text)
        x0, y0 = int(left) - 4, int(baseline) - round(face.height * 1.3)
        mask = np.zeros((round(face.height * 2.1), int(wide) + 12), np.uint8)
        line = put_text(mask, face, text, float(left - x0), float(baseline - y0))
        self.picture.paste(colour, (x0, y0), Image.fromarray(mask))
        line = shift_line(line, x0, y0)
        if keep:
            self.lines.append(line)
        return line

    def flip(self, box: Sequence[Px]) -> Box:
        """Return the box mirrored where the page is read from the right."""
        x0, y0, x1, y1 = map(float, box)
        return (self.width - x1, y0, self.width - x0, y1) if self.is_rtl else (x0, y0, x1, y1)

    def box(self, box: Sequence[Px], fill: Colour | None = None, edge: Colour | None = None, width: int = 1) -> Box:
        """Draw a rectangle; return where it is."""
        where = self.flip(box)
        self.pen.rectangle(where, fill, edge, width)
        return where

    def rule(self, x0: Px, y: Px, x1: Px, colour: Colour = BLACK, width: int = 1) -> None:
        """Draw a level line."""
        a, _, b, _ = self.flip((x0, y, x1, y))
        self.pen.line((a, y, b, y), colour, width)

    def trim(self, bottom: Px) -> None:
        """Cut the page below ``bottom``."""
        self.height = min(self.height, round(bottom))
        self.picture = self.picture.crop((0, 0, self.width, self.height))

    def shoot(
        self, rng: Random, level: float, *, boxes: Sequence[Box] = (), margin_px: int = 0, keep_colours: bool = True
    ) -> Shot:
        """Photograph the board; a margin lays it on a table top that shows around it."""
        clean = is_clean(rng, level)
        content = around([line.box for line in self.lines] + list(boxes)) if self.lines or boxes else (
            2.0, 2.0, self.width - 2.0, self.height - 2.0)  # fmt: skip
        if margin_px:
            content = (2.0, 2.0, self.width - 2.0, self.height - 2.0)
        width, height = self.width + 2 * margin_px, self.height + 2 * margin_px
        placed = tuple(value + margin_px for value in content)
        warp = choose_warp(rng, width, height, placed, 0.0 if clean else level)  # type: ignore[arg-type]
        shift = np.array([[1, 0, margin_px], [0, 1, margin_px], [0, 0, 1.0]])
        whole = shift if warp is None else warp @ shift
        picture = self.picture
        if margin_px or warp is not None:
            around_it = (
                ground(rng, self.paper, width, height) if margin_px else Image.new("RGB", (width, height), self.paper)
            )
            seen = warp_image(picture, whole, (width, height), self.paper)
            cover = warp_image(Image.new("L", picture.size, 255), whole, (width, height))
            picture = Image.composite(seen, around_it, cover)
        if not clean:
            picture = spoil(rng, picture, level * 0.9, keep_colours=keep_colours)
        is_still = warp is None and not margin_px
        moved: list[Box] = (
            [tuple(box) for box in move_boxes(whole, np.array(boxes, np.float64)).tolist()] if len(boxes) else []
        )
        return Shot(
            picture=picture, lines=tuple(self.lines) if is_still else move_lines(whole, tuple(self.lines)),
            boxes=tuple(moved), clean=clean,
        )  # fmt: skip


def ground(rng: Random, paper: Colour, width: int, height: int) -> Image.Image:
    """Return a grainy table top, clearly darker or lighter than the paper."""
    value = rng.uniform(20, 130) if sum(paper) > 300 else rng.uniform(150, 230)
    tint = np.array([value * rng.uniform(0.75, 1.15) for _ in range(3)], np.float32)
    y, x = rng.randrange(500), rng.randrange(500)
    grain = np.linspace(-4, 4, 256, dtype=np.float32)[:, None] * np.float32(rng.uniform(0, 12))
    shades = np.clip(tint + grain, 0, 255).astype(np.uint8)
    return Image.fromarray(np.take(shades, grain_tile()[y : y + height, x : x + width], axis=0))


def shift_line(line: Line, x: Px, y: Px) -> Line:
    """Return the line moved by whole px."""

    def moved(box: Box) -> Box:
        return float(box[0] + x), float(box[1] + y), float(box[2] + x), float(box[3] + y)

    glyphs = tuple(Glyph(char=glyph.char, box=moved(glyph.box)) for glyph in line.glyphs)
    return Line(text=line.text, box=moved(line.box), glyphs=glyphs)


class Overfull(Exception):
    """A text does not fit its place at any readable size: the page is drawn anew with other words."""


def fit(face: Face, text: str, most_px: Px) -> Face:
    """Return the face at the largest size, up to its own, at which the text is narrow enough.

    Raises:
        Overfull: it is too wide at the smallest size too.
    """
    wide = text_width(face, text)
    while wide > most_px:
        if face.size_px <= _SMALLEST_PX:
            raise Overfull(text)
        face = face_of(face.font, max(_SMALLEST_PX, min(face.size_px - 1, int(face.size_px * most_px / wide))))
        wide = text_width(face, text)
    return face


def wrap(face: Face, text: str, most_px: Px) -> list[str]:
    """Return the text in lines that are narrow enough, cut at blanks."""
    lines: list[str] = []
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(face, longer) <= most_px:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def upright(fonts: Sequence[Font]) -> list[Font]:
    """Return the fonts that are not slanted and not made for headings."""
    slanted = ("It.", "Italic", "Oblique", "Ita.", "-It")
    plain = [font for font in fonts if not any(mark in font.file for mark in slanted) and font.style != "display"]
    return plain or list(fonts)


def bold_of(font: Font, fonts: Sequence[Font]) -> Font:
    """Return the bold of the same family, or the font itself."""
    same = [one for one in fonts if one.family == font.family]
    bold = [one for one in same if one.weight == 700 or "Bold." in one.file or "-Bd." in one.file]
    return bold[0] if (bold and not font.weight) or (bold and bold[0].weight) else font


def faces(
    rng: Random, tongue: Language, split: str, size_px: int, styles: tuple[str, ...] = ()
) -> tuple[Face, Face, Face]:
    """Return the body, the bold and the title face of one document."""
    fonts = tongue.fonts(split, styles)
    font = rng.choice(upright(fonts))
    bold = bold_of(font, fonts)
    return face_of(font, size_px), face_of(bold, size_px), face_of(bold, round(size_px * rng.uniform(1.3, 1.7)))


def tint(rng: Random, low: int, high: int, spread: int = 25) -> Colour:
    """Return a colour whose channels lie between two values, not far from gray."""
    value = rng.randint(low, high)
    red, green, blue = (min(high, max(low, value + rng.randint(-spread, spread))) for _ in range(3))
    return red, green, blue


def accent(rng: Random) -> Colour:
    """Return a strong colour on which white text can be read."""
    return rng.choice(
        ((24, 78, 140), (140, 30, 44), (24, 104, 70), (92, 44, 128), (50, 58, 72), (150, 78, 16), (10, 96, 112))
    )
