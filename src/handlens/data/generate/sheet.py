"""Rows on paper: the layout and the shot that receipts, labels and tables share.

Boundary: places text it is given; what the text says is the business of each kind.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from handlens.data.generate.ink import Face, around, put_text, text_width
from handlens.data.generate.page import Colour, pick_colours
from handlens.data.generate.photo import (
    choose_warp,
    grain_tile,
    is_clean,
    move_lines,
    paint,
    spoil,
    warp_image,
)  # fmt: skip
from handlens.data.records import Box, Line

Mask = UInt8[np.ndarray, "height width"]

_PAPER = 4
"""Least ink on paper, out of 255: what is below half of it after the warp is beside the paper."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Up to three texts on one baseline, or a rule: dash, solid, double or none.

    ``gap`` is the height of the row in line boxes of its face.
    """

    face: Face
    left: str = ""
    middle: str = ""
    right: str = ""
    rule: str = ""
    gap: float = 1.3

    @property
    def height_px(self) -> float:
        """How far down the next row starts."""
        return self.face.height * self.gap * (0.6 if self.rule else 1.0)

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts that are there, left to right."""
        return tuple(text for text in (self.left, self.middle, self.right) if text)

    def width_px(self) -> float:
        """Return the least width that keeps the texts apart."""
        space = 1.2 * self.face.size_px * max(0, len(self.texts) - 1)
        return space + sum(text_width(self.face, text) for text in self.texts)


def set_rows(
    rows: Sequence[Row], width_px: int, height_px: int, pad_x: float, top: float, *, is_rtl: bool = False
) -> tuple[Mask, tuple[Line, ...]]:
    """Set rows from the top down on a blank mask; lines come back in reading order.

    Where reading starts at the right, left and right of a row change places.
    """
    mask = np.zeros((height_px, width_px), np.uint8)
    lines: list[Line] = []
    at = top
    for row in rows:
        if row.rule:
            draw_rule(mask, row.rule, round(pad_x), round(width_px - pad_x), round(at + row.height_px / 2))
        else:
            base = at + (row.height_px - row.face.height) / 2 + row.face.ascent
            for text, share in ((row.left, 0.0), (row.middle, 0.5), (row.right, 1.0)):
                if text:
                    room = width_px - 2 * pad_x - text_width(row.face, text)
                    lines.append(put_text(mask, row.face, text, pad_x + room * (1 - share if is_rtl else share), base))
        at += row.height_px
    return mask, tuple(lines)


def draw_rule(mask: Mask, kind: str, x0: int, x1: int, y: int) -> None:
    """Draw a level rule; ``none`` leaves the gap empty."""
    if kind == "dash":
        for x in range(x0, x1, 7):
            mask[y : y + 1, x : min(x + 4, x1)] = 220
    elif kind == "double":
        mask[y - 1 : y, x0:x1] = 220
        mask[y + 2 : y + 3, x0:x1] = 220
    elif kind == "solid":
        mask[y : y + 2, x0:x1] = 220


def shoot(
    rng: Random,
    mask: Mask,
    lines: tuple[Line, ...],
    level: float,
    *,
    colours: tuple[Colour, Colour] | None = None,
    margin_px: int = 0,
) -> tuple[Image.Image, tuple[Line, ...], bool]:
    """Return the picture of a page, its lines where they landed, and whether it is clean.

    ``margin_px`` above 0 lays the paper on a darker ground that shows around it.
    """
    clean = is_clean(rng, level)
    bend = 0.0 if clean else level
    ink, paper = colours or pick_colours(rng, level)
    sheet_h, sheet_w = mask.shape
    height, width = sheet_h + 2 * margin_px, sheet_w + 2 * margin_px
    content = around([line.box for line in lines])
    if margin_px:
        content = (2.0, 2.0, sheet_w - 2.0, sheet_h - 2.0)
    shift = np.array([[1, 0, margin_px], [0, 1, margin_px], [0, 0, 1.0]])
    placed: Box = tuple(value + margin_px for value in content)  # type: ignore[assignment]
    warp = choose_warp(rng, width, height, placed, bend)
    if warp is None and not margin_px:
        pixels = paint(mask, ink, paper)
        return (Image.fromarray(pixels) if clean else spoil(rng, pixels, level)), lines, clean
    whole = shift if warp is None else warp @ shift
    marked = np.maximum(mask, _PAPER)
    if warp is None:
        seen = np.pad(marked, margin_px)
    else:
        seen = np.asarray(warp_image(Image.fromarray(marked), whole, (width, height)))
    pixels = paint(seen, ink, paper)
    if margin_px:
        pixels = np.where((seen < _PAPER // 2)[..., None], _ground(rng, paper, width, height), pixels)
    picture = Image.fromarray(pixels) if clean else spoil(rng, pixels, level)
    return picture, move_lines(whole, lines), clean


def _ground(rng: Random, paper: Colour, width: int, height: int) -> np.ndarray:
    """Return a grainy table top, clearly darker or lighter than the paper."""
    is_light_paper = sum(paper) > 300
    value = rng.uniform(20, 130) if is_light_paper else rng.uniform(150, 230)
    tint = np.array([value * rng.uniform(0.75, 1.15) for _ in range(3)], np.float32)
    y, x = rng.randrange(500), rng.randrange(500)
    grain = np.linspace(-4, 4, 256, dtype=np.float32)[:, None] * np.float32(rng.uniform(0, 12))
    shades = np.clip(tint + grain, 0, 255).astype(np.uint8)
    return np.take(shades, grain_tile()[y : y + height, x : x + width], axis=0)
