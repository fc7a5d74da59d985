"""Join letters the way a script asks for: Arabic forms, Indic clusters, marks, right to left.

Boundary: text in, glyphs with places out; needs uharfbuzz and freetype-py. Plain scripts do not
come here: ``ink`` sets them character by character.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np

from handlens.data.generate.fonts import Font, font_path
from handlens.errors import DataError, NeedsExtra

_JOINED = re.compile(
    "[\u0300-\u036f\u0590-\u08ff\u0900-\u0dff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\ufb1d-\ufdff\ufe70-\ufeff]"
)


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One glyph of a shaped text: its ink, and where ink begins relative to the pen at the start."""

    mask: np.ndarray
    left: int
    top: int


@dataclass(frozen=True, kw_only=True)
class Shaped:
    """A text set on one line. ``spans`` holds, per character, left, top, right, bottom of its cluster."""

    marks: tuple[Mark, ...]
    spans: tuple[tuple[float, float, float, float], ...]
    width: float


def needs_shaping(text: str) -> bool:
    """True where setting character by character would be wrong.

    >>> needs_shaping("Größe 12"), needs_shaping("سلام")
    (False, True)
    """
    return not text.isascii() and _JOINED.search(text) is not None


@lru_cache(maxsize=32768)
def shape(font: Font, size_px: int, text: str) -> Shaped:
    """Set a text with its script's rules, in visual order; a cluster's characters share one span.

    Raises:
        DataError: the font lacks a character.
        NeedsExtra: uharfbuzz or freetype-py is missing.
    """
    harfbuzz, hb_font = _hb_font(font, size_px)
    marks: list[Mark] = []
    spans: list[tuple[float, float, float, float] | None] = [None] * len(text)
    pen = 0.0
    for start, end, is_rtl in visual_runs(text):
        buffer = harfbuzz.Buffer()
        buffer.add_str(text[start:end])
        buffer.guess_segment_properties()
        buffer.direction = "rtl" if is_rtl else "ltr"
        harfbuzz.shape(hb_font, buffer)
        clusters: dict[int, list[float]] = {}
        for info, position in zip(buffer.glyph_infos, buffer.glyph_positions, strict=True):
            if info.codepoint == 0:
                char = text[start + info.cluster]
                raise DataError(f"the font {font.family} has no {unicodedata.name(char, char)}; choose another font")
            mask, left, top = glyph_ink(font, size_px, info.codepoint)
            x, y = pen + position.x_offset / 64, -position.y_offset / 64
            box = clusters.setdefault(info.cluster, [np.inf, np.inf, -np.inf, -np.inf, pen, pen])
            if mask.size:
                mark = Mark(mask=mask, left=round(x) + left, top=round(y) + top)
                marks.append(mark)
                high, wide = mask.shape
                box[0], box[1] = min(box[0], mark.left), min(box[1], mark.top)
                box[2], box[3] = max(box[2], mark.left + wide), max(box[3], mark.top + high)
            pen += position.x_advance / 64
            box[5] = pen
        starts = sorted(clusters)
        for i, cluster in enumerate(starts):
            box = clusters[cluster]
            if box[0] == np.inf:  # a space
                box[:4] = [box[4], -size_px * 0.7, max(box[4] + 1, box[5]), 0.0]
            last = starts[i + 1] if i + 1 < len(starts) else end - start
            for at in range(cluster, last):
                spans[start + at] = (float(box[0]), float(box[1]), float(box[2]), float(box[3]))
    return Shaped(marks=tuple(marks), spans=tuple(span or (0.0, 0.0, 1.0, 1.0) for span in spans), width=pen)


def visual_runs(text: str) -> list[tuple[int, int, bool]]:
    """Return ``(start, end, is_rtl)`` of the runs of a line from left to right.

    The implicit rules of the Unicode bidirectional algorithm (UAX 9: W1-W7, N1-N2, I1-I2, L2);
    the text holds no explicit controls. The first strong character gives the line's direction.

    >>> visual_runs("abc 12")
    [(0, 6, False)]
    """
    kinds = [unicodedata.bidirectional(char) or "L" for char in text]
    strong = next((kind for kind in kinds if kind in ("L", "R", "AL")), "L")
    base = 0 if strong == "L" else 1
    levels = _levels(_resolve(kinds, "R" if base else "L"), base)
    for i in range(len(text) - 1, -1, -1):  # L1: trailing blanks stand at the end of the line
        if kinds[i] not in ("WS", "B", "S"):
            break
        levels[i] = base
    order = list(range(len(text)))
    for level in range(max(levels, default=0), 0, -1):
        at = 0
        for is_high, group in groupby(order, key=lambda i: levels[i] >= level):
            size = len(list(group))
            if is_high:
                order[at : at + size] = reversed(order[at : at + size])
            at += size
    runs: list[tuple[int, int, bool]] = []
    for i in order:
        is_rtl = levels[i] % 2 == 1
        if runs and runs[-1][2] == is_rtl and (i == runs[-1][1] if not is_rtl else i == runs[-1][0] - 1):
            start, end, _ = runs[-1]
            runs[-1] = (min(start, i), max(end, i + 1), is_rtl)
        else:
            runs.append((i, i + 1, is_rtl))
    return runs


def _resolve(kinds: list[str], base: str) -> list[str]:
    """Return L, R, EN or AN for every character (rules W1 to N2)."""
    out = list(kinds)
    last, strong = base, base
    for i, kind in enumerate(out):
        if kind == "NSM":
            out[i] = last
        elif kind == "EN" and strong == "AL":
            out[i] = "AN"
        if kind in ("L", "R", "AL"):
            strong = kind
        last = out[i]
    out = ["R" if kind == "AL" else kind for kind in out]
    for i in range(1, len(out) - 1):
        before, after = out[i - 1], out[i + 1]
        if before == after and ((out[i] in ("ES", "CS") and before == "EN") or (out[i] == "CS" and before == "AN")):
            out[i] = before
    at = 0
    for kind, group in groupby(list(out)):
        size = len(list(group))
        if kind == "ET" and ("EN" in out[at - 1 : at] or "EN" in out[at + size : at + size + 1]):
            out[at : at + size] = ["EN"] * size
        at += size
    strong = base
    for i, kind in enumerate(out):
        if kind in ("L", "R"):
            strong = kind
        elif kind == "EN" and strong == "L":
            out[i] = "L"
        elif kind not in ("EN", "AN"):
            out[i] = "ON"
    at = 0
    sides = {"L": "L", "R": "R", "EN": "R", "AN": "R"}
    for kind, group in groupby(list(out)):
        size = len(list(group))
        if kind == "ON":
            before = sides[out[at - 1]] if at else base
            after = sides[out[at + size]] if at + size < len(out) else base
            out[at : at + size] = [before if before == after else base] * size
        at += size
    return out


def _levels(kinds: list[str], base: int) -> list[int]:
    odd = {"L": 2, "R": 1, "EN": 2, "AN": 2}
    even = {"L": 0, "R": 1, "EN": 2, "AN": 2}
    return [(odd if base else even)[kind] for kind in kinds]


@lru_cache(maxsize=512)
def _hb_font(font: Font, size_px: int) -> tuple[Any, Any]:
    harfbuzz, face = _hb_face(font)
    hb_font = harfbuzz.Font(face)
    hb_font.scale = (size_px * 64, size_px * 64)
    if font.weight:
        hb_font.set_variations({"wght": font.weight})
    return harfbuzz, hb_font


@lru_cache(maxsize=64)
def _hb_face(font: Font) -> tuple[Any, Any]:
    try:
        import uharfbuzz
    except ImportError:
        raise NeedsExtra("joined scripts (uharfbuzz)", "data") from None
    return uharfbuzz, uharfbuzz.Face(uharfbuzz.Blob.from_file_path(str(font_path(font))))


@lru_cache(maxsize=256)
def _ft_face(font: Font, size_px: int) -> Any:
    try:
        import freetype
    except ImportError:
        raise NeedsExtra("joined scripts (freetype-py)", "data") from None
    face = freetype.Face(str(font_path(font)))
    if font.weight:
        axes = face.get_variation_info().axes
        face.set_var_design_coords([font.weight if axis.tag == "wght" else axis.default for axis in axes])
    face.set_char_size(size_px * 64)
    return face


@lru_cache(maxsize=65536)
def glyph_ink(font: Font, size_px: int, glyph: int) -> tuple[np.ndarray, int, int]:
    """Return the ink of one glyph number with its left and top relative to the pen on the baseline."""
    import freetype

    face = _ft_face(font, size_px)
    face.load_glyph(glyph, freetype.FT_LOAD_RENDER | freetype.FT_LOAD_NO_HINTING)
    slot = face.glyph
    bitmap = slot.bitmap
    if not bitmap.width or not bitmap.rows:
        return np.zeros((0, 0), np.uint8), 0, 0
    ink = np.array(bitmap.buffer, np.uint8).reshape(bitmap.rows, bitmap.pitch)[:, : bitmap.width]
    return np.ascontiguousarray(ink), slot.bitmap_left, -slot.bitmap_top
