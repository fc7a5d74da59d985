"""Pages packed with text: the kind that shows most characters per patch, for learning to read fast.

Boundary: draws one page; a short one is read whole, a long one line by line.
"""

from random import Random

import numpy as np
from PIL import Image

from handlens.data.generate.board import Overfull
from handlens.data.generate.ink import Face, around, can_print, face_of, pens, put_text, size_for_x_height, text_width
from handlens.data.generate.language import Language, language
from handlens.data.generate.page import Page, ask, pick_colours
from handlens.data.generate.photo import choose_warp, is_clean, move_lines, paint, spoil, warp_image
from handlens.data.generate.shaper import needs_shaping
from handlens.data.records import Line, Turn

_READ = (
    "What does it say?", "Read the text.", "Transcribe this.", "Read everything.", "Transcribe the page.",
    "Copy the printed text.", "What is written here?",
)  # fmt: skip
_LINE = (
    "What does the {which} line say?", "Read the {which} line.", "Transcribe the {which} line.",
    "What is written in the {which} line?", "Copy the {which} line.",
)  # fmt: skip
_ORDER = ("first", "second", "third", "fourth")
LONGEST_WHOLE = 100
"""Characters up to which a page is read whole."""


def draw_page(rng: Random, split: str, level: float, tongue: Language | None = None) -> Page:
    """Return a square page filled with lines, each in a font of its own."""
    tongue = tongue or language("en")
    side = rng.choice((112, 168, 224, 224, 224, 280))
    mask = np.zeros((side, side), np.uint8)
    fonts = [rng.choice(tongue.fonts(split)) for _ in range(3)]
    x_height = rng.uniform(11 - 3.5 * level, 17 - 3 * level)
    lines: list[Line] = []
    top = rng.uniform(1, 6)
    while True:
        font = rng.choice(fonts)
        face = face_of(font, size_for_x_height(font, x_height * rng.uniform(0.9, 1.1)))
        if top + face.height > side - 1:
            break
        text = _fill(rng, split, face, side - 6, tongue)
        if text and (tongue.code != "en" or can_print(font, text)):
            at = rng.uniform(1, 5)
            left = side - at - text_width(face, text) if tongue.is_rtl else at
            lines.append(put_text(mask, face, text, left, top + face.ascent))
            top += face.height * rng.uniform(1.0, 1.25)
        elif not text:
            break
    if not lines and tongue.code != "en":
        raise Overfull("a page without a line")
    clean = is_clean(rng, level)
    warp = None
    if lines and not clean:
        warp = choose_warp(rng, side, side, around([line.box for line in lines]), level)
    if warp is not None:
        mask = np.asarray(warp_image(Image.fromarray(mask), warp, (side, side)))
    ink, paper = pick_colours(rng, level)
    pixels = paint(mask, ink, paper)
    return Page(
        kind="pages", picture=Image.fromarray(pixels) if clean else spoil(rng, pixels, level),
        lines=move_lines(warp, tuple(lines)), talk=lambda own: _talk(own, [line.text for line in lines], tongue),
        facts={"families": sorted({font.family for font in fonts}), "clean": clean},
    )  # fmt: skip


def _talk(rng: Random, texts: list[str], tongue: Language) -> tuple[Turn, ...]:
    """Ask for the whole text, or for one of the first lines and the last."""
    whole = "\n".join(texts)
    if tongue.code != "en":
        if len(whole) <= LONGEST_WHOLE:
            return (tongue.ask(rng, "pages.read", "read", whole),)
        numbers = rng.sample(range(len(texts)), min(2, len(texts)))
        return tuple(tongue.ask(rng, "pages.line", "line", texts[i], n=str(i + 1)) for i in numbers)
    if len(whole) <= LONGEST_WHOLE:
        return (ask(rng, "pages.read", _READ, whole),)
    number = rng.randrange(min(len(texts) - 1, len(_ORDER)))
    return (
        ask(rng, "pages.line", _LINE, texts[number], which=_ORDER[number]),
        ask(rng, "pages.line", _LINE, texts[-1], which="last"),
    )


def _fill(rng: Random, split: str, face: Face, width_px: int, tongue: Language) -> str:
    """Return text that nearly fills a line: phrases joined, cut where the line ends.

    Joined scripts are cut between phrases: half a cluster is no text.
    """
    text = tongue.phrase(rng, split)
    if needs_shaping(face.font.tall) or needs_shaping(text):
        return _fill_whole(rng, split, face, width_px, tongue)
    while pens(face, text)[-1] < width_px:
        text += " " + tongue.phrase(rng, split)
    ends = pens(face, text)
    return text[: sum(end <= width_px for end in ends[1:])].rstrip()


def _fill_whole(rng: Random, split: str, face: Face, width_px: int, tongue: Language) -> str:
    text = ""
    for _ in range(12):
        longer = f"{text} {tongue.phrase(rng, split, 3, 12)}".strip()
        if text_width(face, longer) > width_px:
            break
        text = longer
    return text
