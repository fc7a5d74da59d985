"""Formulas with their LaTeX: fractions, roots, powers, sums, integrals, Greek letters.

Boundary: writes a formula and asks about it; matplotlib's mathtext sets it.
"""

from functools import lru_cache
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from handlens.data.generate.board import Board, Overfull, accent, faces, tint
from handlens.data.generate.language import Language, language
from handlens.data.generate.page import Page
from handlens.data.records import Box, Turn
from handlens.errors import NeedsExtra

SETS = ("dejavusans", "stix", "dejavuserif", "stixsans")
HELDOUT_SETS = ("cm",)
LAYOUTS = ("plain", "numbered", "boxed")
HELDOUT_LAYOUTS = ("titled",)
_LETTERS = "abcdknmpqrstuvwxyz"
_GREEK = (
    r"\alpha",
    r"\beta",
    r"\gamma",
    r"\delta",
    r"\lambda",
    r"\mu",
    r"\pi",
    r"\sigma",
    r"\theta",
    r"\omega",
    r"\phi",
)
_BIG = (r"\sum", r"\int", r"\prod", r"\sqrt", r"\frac", r"\lim", r"\infty", r"\leq", r"\geq", r"\neq", r"\cdot", r"\pm")
_FUNCTIONS = (r"\sin", r"\cos", r"\log", r"\exp", r"\tan")


def draw_formula(rng: Random, split: str, level: float, tongue: Language | None = None) -> Page:
    """Return one or two formulas, each on a line of its own."""
    tongue = tongue or language("en")
    is_heldout = split == "heldout"
    layout = rng.choice(HELDOUT_LAYOUTS if is_heldout else LAYOUTS)
    formulas = [write_formula(rng) for _ in range(1 if rng.random() < 0.8 else 2)]
    fontset = rng.choice(HELDOUT_SETS if is_heldout else SETS)
    size = rng.uniform(14, 24)
    inks = [set_formula(formula, fontset, round(size)) for formula in formulas]
    body, bold, _ = faces(rng, tongue, split, rng.randint(12, 15))
    pad = rng.randint(12, 26)
    label_px = 60 if layout == "numbered" else 0
    width = max(160, max(ink.shape[1] for ink in inks) + 2 * pad + label_px)
    top = pad + (body.height + 10 if layout == "titled" else 0)
    height = top + sum(ink.shape[0] + 16 for ink in inks) + pad
    if width > 620 or height > 400:
        raise Overfull(formulas[0])
    board = Board(width, height, tint(rng, 236, 255, 8))
    colour = rng.choice(((16, 16, 20), (16, 16, 20), accent(rng)))
    boxes: list[Box] = []
    if layout == "titled":
        board.text(bold, tongue.first_upper(tongue.word("number")) + f" {rng.randint(1, 99)}", pad, pad + bold.ascent)
    at = top
    for i, ink in enumerate(inks):
        high, wide = ink.shape
        x = pad if layout == "titled" else (width - label_px - wide) // 2
        board.picture.paste(colour, (x, at), Image.fromarray(ink))
        boxes.append((float(x), float(at), float(x + wide), float(at + high)))
        if layout == "numbered":
            board.text(
                body, f"({rng.randint(1, 40) + i})", width - 10, at + high / 2 + body.ascent * 0.4, anchor="right"
            )
        at += high + 16
    if layout == "boxed":
        board.box((4, 4, width - 5, height - 5), None, (90, 90, 96), 2)
    shot = board.shoot(rng, level, boxes=boxes)
    return Page(
        kind="formulas", picture=shot.picture, lines=shot.lines, talk=lambda own: _talk(own, tongue, formulas),
        facts={
            "layout": layout, "font": fontset, "clean": shot.clean,
            "formulas": [{"latex": latex, "box": [round(v, 1) for v in box]}
                         for latex, box in zip(formulas, shot.boxes, strict=True)],
        },
    )  # fmt: skip


def write_formula(rng: Random) -> str:
    """Return one formula in the LaTeX that mathtext knows, with single blanks."""
    roll = rng.random()
    left = _term(rng, 1)
    if roll < 0.6:
        return f"{left} {rng.choice(_RELATIONS)} {_sum(rng, 2)}"
    if roll < 0.75:
        i, n = rng.choice("ijk"), rng.choice(("n", "N", "m", r"\infty"))
        return rf"\sum_{{{i} = {rng.randint(0, 1)}}}^{{{n}}} {_term(rng, 1)} = {_sum(rng, 1)}"
    if roll < 0.9:
        x = rng.choice("xtuy")
        low, high = rng.randint(0, 3), rng.choice(("4", "5", "a", r"\pi"))
        return rf"\int_{{{low}}}^{{{high}}} {_term(rng, 1)} \, d{x} = {_sum(rng, 1)}"
    goal = rng.choice(("0", "1", r"\infty"))
    return rf"\lim_{{x \to {goal}}} {_fraction(rng, 1)} = {_term(rng, 0)}"


_RELATIONS = ("=", "=", "=", "=", r"\leq", r"\geq", r"\neq")


def _atom(rng: Random) -> str:
    roll = rng.random()
    if roll < 0.45:
        return rng.choice(_LETTERS)
    if roll < 0.7:
        return str(rng.randint(2, 99))
    if roll < 0.85:
        return rng.choice(_GREEK)
    return f"{rng.choice(_LETTERS)}_{{{rng.choice('0123ijkn')}}}"


def _fraction(rng: Random, depth: int) -> str:
    return rf"\frac{{{_sum(rng, depth - 1)}}}{{{_term(rng, depth - 1)}}}"


def _term(rng: Random, depth: int) -> str:
    roll = rng.random()
    if depth <= 0 or roll < 0.2:
        return _atom(rng)
    if roll < 0.45:
        return _fraction(rng, depth)
    if roll < 0.65:
        return f"{rng.choice(_LETTERS)}^{{{rng.choice(('2', '3', 'n', '-1', 'n+1'))}}}"
    if roll < 0.8:
        return rf"\sqrt{{{_sum(rng, depth - 1)}}}"
    if roll < 0.9:
        return rf"{rng.choice(_FUNCTIONS)}({_atom(rng)})"
    return f"({_sum(rng, depth - 1)})"


def _sum(rng: Random, depth: int) -> str:
    out = _term(rng, depth)
    for _ in range(rng.choice((0, 1, 1, 2)) if depth > 0 else rng.choice((0, 1))):
        out += f" {rng.choice(_SIGNS)} {_term(rng, depth)}"
    return out


_SIGNS = ("+", "-", "+", "-", r"\cdot", r"\pm")


@lru_cache
def _parser() -> Any:
    try:
        from matplotlib.mathtext import MathTextParser
    except ImportError:
        raise NeedsExtra("formulas (matplotlib)", "data") from None
    return MathTextParser("agg")


@lru_cache(maxsize=64)
def _properties(fontset: str, size: int) -> Any:
    from matplotlib.font_manager import FontProperties

    return FontProperties(size=size, math_fontfamily=fontset)


def set_formula(latex: str, fontset: str, size: int) -> np.ndarray:
    """Return the ink of a formula: a mask with 255 for ink, cut to it."""
    image = np.asarray(_parser().parse(f"${latex}$", dpi=72, prop=_properties(fontset, size)).image, np.uint8)
    rows, columns = np.nonzero(image.any(1))[0], np.nonzero(image.any(0))[0]
    return np.ascontiguousarray(image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def _talk(rng: Random, tongue: Language, formulas: list[str]) -> tuple[Turn, ...]:
    """Ask for the LaTeX, and whether a sign is there; yes as often as no."""
    turns = [tongue.ask(rng, "formulas.latex", "latex", "\n".join(formulas))]
    if rng.random() < 0.5:
        text = " ".join(formulas)
        is_there = rng.random() < 0.5
        signs = [sign for sign in (*_BIG, *_GREEK, *_FUNCTIONS) if _has(text, sign) == is_there]
        if signs:
            turns.append(tongue.ask(rng, "formulas.symbol", "symbol", tongue.yes(is_there), name=rng.choice(signs)))
    rng.shuffle(turns)
    return tuple(turns)


def _has(text: str, sign: str) -> bool:
    """True where the command stands there itself, not as the beginning of a longer one."""
    at = text.find(sign)
    while at >= 0:
        if not text[at + len(sign) : at + len(sign) + 1].isalpha():
            return True
        at = text.find(sign, at + 1)
    return False
