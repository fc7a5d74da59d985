"""One to four printed lines: the kind that teaches reading.

Boundary: draws one page; words, ink and camera have their own files.
"""

from random import Random

import numpy as np
from PIL import Image

from handlens.data.generate.fonts import Font
from handlens.data.generate.ink import (
    Face,
    around,
    can_print,
    face_of,
    pens,
    put_text,
    size_for_x_height,
)  # fmt: skip
from handlens.data.generate.language import Language, language
from handlens.data.generate.page import Page, ask, pick_colours
from handlens.data.generate.photo import choose_warp, is_clean, move_lines, paint, spoil, warp_image
from handlens.data.records import Line, Turn

MIN_WIDTH, MAX_WIDTH = 160, 520
MIN_HEIGHT, MAX_HEIGHT = 48, 224
MIN_ASPECT, MAX_ASPECT = 1.2, 7.0

_READ = (
    "What does it say?", "Read the text.", "Transcribe this.", "What is written here?",
    "Read this.", "What text is in the picture?", "Write down the text.", "What does the text say?",
    "Please transcribe the text.", "Copy the printed text.",
)  # fmt: skip
_LINE = (
    "What is the {which} line?", "Read the {which} line.", "What does the {which} line say?",
    "Transcribe the {which} line.", "Write down only the {which} line.",
)  # fmt: skip
_WORD = (
    "What is the {which} word?", "Read the {which} word.", "Which word comes {which}?",
    "Give only the {which} word.", "Write down the {which} word.",
)  # fmt: skip
_COUNT = (
    "How many lines are there?", "How many lines of text are there?", "Count the lines.",
    "How many lines does the text have?", "What is the number of lines?",
)  # fmt: skip
_ORDER = ("first", "second", "third", "fourth")


def draw_lines(rng: Random, split: str, level: float, tongue: Language | None = None) -> Page:
    """Return one printed line (60 % at level 1, all at level 0) or two to four; a low level prints less.

    One in twenty-five at level 1 is a strip: one very long line, or a tall column of words.
    """
    tongue = tongue or language("en")
    if rng.random() < 0.04 * level:
        return _draw_strip(rng, split, level, tongue)
    count = 1 if rng.random() < 1 - 0.4 * level else rng.randint(2, 4)
    texts = [tongue.phrase(rng, split, max_chars=round(8 + 20 * level)) for _ in range(count)]
    font = _pick_font(rng, split, texts, tongue)
    clean = is_clean(rng, level)
    bend = 0.0 if clean else level
    face, tracking = _fit(rng, font, texts, level)
    mask, lines = _set(rng, face, tracking, texts)
    height, width = mask.shape
    warp = choose_warp(rng, width, height, around([line.box for line in lines]), bend)
    if warp is not None:
        mask = np.asarray(warp_image(Image.fromarray(mask), warp, (width, height)))
    ink, paper = pick_colours(rng, level)
    pixels = paint(mask, ink, paper)
    picture = Image.fromarray(pixels) if clean else spoil(rng, pixels, level)
    return Page(
        kind="lines", picture=picture, lines=move_lines(warp, lines), talk=lambda own: _talk(own, texts, tongue),
        facts={"font": font.file, "family": font.family, "size_px": face.size_px, "clean": clean},
    )  # fmt: skip


def _pick_font(rng: Random, split: str, texts: list[str], tongue: Language) -> Font:
    text, fonts = "".join(texts), tongue.fonts(split)
    return rng.choice([font for font in fonts if can_print(font, text)] if tongue.code == "en" else fonts)


def _draw_strip(rng: Random, split: str, level: float, tongue: Language) -> Page:
    """Return a picture of extreme shape: 8 to 20 times as wide as high, or a column of words."""
    is_wide = rng.random() < 0.6
    if is_wide:
        texts = [" ".join(tongue.phrase(rng, split, 8, 24) for _ in range(rng.randint(2, 3)))]
    else:
        texts = [tongue.phrase(rng, split, 3, 8) for _ in range(rng.randint(8, 14))]
    font = _pick_font(rng, split, texts, tongue)
    face = face_of(font, size_for_x_height(font, rng.uniform(9, 13)))
    widths = [pens(face, text)[-1] for text in texts]
    pad, gap = rng.randint(4, 9), face.height * rng.uniform(1.1, 1.3)
    width, height = round(max(widths)) + 2 * pad + 4, round(gap * len(texts)) + 2 * pad
    mask = np.zeros((height, width), np.uint8)
    lines = []
    for i, (text, wide) in enumerate(zip(texts, widths, strict=True)):
        left = width - pad - wide if tongue.is_rtl else pad
        lines.append(put_text(mask, face, text, float(left), float(pad + face.ascent + i * gap)))
    ink, paper = pick_colours(rng, level)
    clean = is_clean(rng, level)
    pixels = paint(mask, ink, paper)
    return Page(
        kind="lines", picture=Image.fromarray(pixels) if clean else spoil(rng, pixels, level), lines=tuple(lines),
        talk=lambda own: _talk(own, texts, tongue),
        facts={"font": font.file, "family": font.family, "size_px": face.size_px, "clean": clean, "layout": "strip"},
    )  # fmt: skip


def _fit(rng: Random, font: Font, texts: list[str], level: float) -> tuple[Face, float]:
    """Pick a size whose longest line fits and whose small letters are 8 to 20 px tall."""
    x_height = rng.uniform(14 - 6 * level, 20) if rng.random() < 1 - 0.3 * level else rng.uniform(10, 15)
    size = size_for_x_height(font, x_height)
    size -= size % 2 if size > 20 else 0  # fewer sizes, so that most glyphs are drawn already
    most = MAX_WIDTH - 24
    for _ in range(4):
        face = face_of(font, size)
        widest = max(pens(face, text)[-1] for text in texts)
        tall = face.height * 1.15 * len(texts)
        over = max(widest / most, tall / (MAX_HEIGHT - 14))
        if over <= 1:
            break
        size = max(8, int(size / over))
    face = face_of(font, size)
    tracking = 0.0
    if rng.random() < 0.15:
        room = (most - widest) / max(len(text) for text in texts)
        tracking = max(-0.3, min(room, rng.uniform(-0.02, 0.2) * size))
    return face, tracking


def _set(rng: Random, face: Face, tracking: float, texts: list[str]) -> tuple[np.ndarray, tuple[Line, ...]]:
    """Set the lines on a blank mask with random margins inside the size limits."""
    widths = [pens(face, text, tracking)[-1] for text in texts]
    block_w = max(widths)
    gap = face.height * rng.uniform(1.08, 1.6)
    room = MAX_HEIGHT - 12 - face.height
    if len(texts) > 1:
        gap = min(gap, room / (len(texts) - 1))
    block_h = face.height + gap * (len(texts) - 1)
    width = min(MAX_WIDTH, max(MIN_WIDTH, block_w + rng.uniform(12, 20) + _slack(rng, 90.0)))
    height = min(MAX_HEIGHT, max(MIN_HEIGHT, block_h + rng.uniform(8, 14) + _slack(rng, 60.0)))
    height = min(max(height, width / MAX_ASPECT), MAX_HEIGHT)
    width = min(max(width, height * MIN_ASPECT), MAX_WIDTH)
    mask = np.zeros((int(np.ceil(height)), int(np.ceil(width))), np.uint8)
    spare_x, spare_y = mask.shape[1] - block_w, mask.shape[0] - block_h
    left = rng.uniform(min(5, spare_x / 2), max(spare_x - 5, spare_x / 2))
    top = rng.uniform(min(3, spare_y / 2), max(spare_y - 3, spare_y / 2))
    align = rng.choice((0.0, 0.0, 0.5, 0.5, 1.0))
    lines: list[Line] = []
    for i, (text, wide) in enumerate(zip(texts, widths, strict=True)):
        x = left + (block_w - wide) * align
        base = top + face.ascent + i * gap
        lines.append(put_text(mask, face, text, x, base, tracking_px=tracking))
    return mask, tuple(lines)


def _slack(rng: Random, most: float) -> float:
    return most * rng.random() ** 2


def _talk(rng: Random, texts: list[str], tongue: Language) -> tuple[Turn, ...]:
    """Ask for the whole text first (four of five times), then for a part of it."""
    if tongue.code != "en":
        read = tongue.ask(rng, "lines.read", "read", "\n".join(texts))
        if len(texts) == 1 or rng.random() < 0.6:
            return (read,)
        number = rng.randrange(len(texts))
        return read, tongue.ask(rng, "lines.part", "line", texts[number], n=str(number + 1))
    read = ask(rng, "lines.read", _READ, "\n".join(texts))
    part = _part(rng, texts)
    if part is None:
        return (read,)
    roll = rng.random()
    if roll < 0.6:
        return (read,)
    return (part, read) if roll < 0.75 else (read, part)


def _part(rng: Random, texts: list[str]) -> Turn | None:
    words = " ".join(texts).split()
    choices = []
    if len(texts) > 1:
        choices += ["line", "line", "count"]
    if len(words) > 1:
        choices.append("word")
    if not choices:
        return None
    choice = rng.choice(choices)
    if choice == "count":
        return ask(rng, "lines.part", _COUNT, str(len(texts)))
    if choice == "word":
        which = rng.choice(("first", "last"))
        return ask(rng, "lines.part", _WORD, words[0 if which == "first" else -1], which=which)
    index = rng.choice((*range(min(len(texts), len(_ORDER))), len(texts) - 1)) if len(texts) > 4 else (
        rng.randrange(len(texts)))  # fmt: skip
    is_last = index == len(texts) - 1
    which = "last" if is_last and (index >= len(_ORDER) or rng.random() < 0.6) else _ORDER[index]
    return ask(rng, "lines.part", _LINE, texts[index], which=which)
