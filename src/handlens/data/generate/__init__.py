"""Generated pictures with everything that is true of them.

Boundary: no torch; the same arguments give the same bytes on every run.
"""

from collections.abc import Callable
from random import Random

from handlens.data.generate.page import Page
from handlens.data.records import Record
from handlens.errors import DataError, did_you_mean

KINDS: tuple[str, ...] = ("lines", "pages", "receipts", "labels", "tables", "scenes", "mixed")
SPLITS: tuple[str, ...] = ("train", "validation", "heldout")
MIXTURE: dict[str, int] = {"lines": 35, "scenes": 25, "receipts": 20, "labels": 10, "tables": 10}
"""Shares of ``mixed`` in percent."""

LICENCE = "CC0-1.0"
SOURCE = "handlens.data.generate"

Draw = Callable[[Random, str, float], Page]


def generate(kind: str, seed: int, index: int, *, split: str = "train", level: float = 1.0) -> Record:
    """Return picture number ``index`` of a kind; a pure function of its arguments.

    ``split`` is train, validation (as train, other draws) or heldout (words, fonts and layouts
    that train never shows). ``level`` 0 to 1 scales damage and difficulty.

    Raises:
        DataError: an unknown kind or split, or a level outside 0..1.
    """
    if kind not in KINDS:
        raise DataError(f"unknown kind '{kind}'{did_you_mean(kind, KINDS)}")
    if split not in SPLITS:
        raise DataError(f"unknown split '{split}'{did_you_mean(split, SPLITS)}")
    if not 0.0 <= level <= 1.0:
        raise DataError(f"level is {level}; needed is 0 (clean) to 1 (careless photo)")
    rng = Random(f"handlens {kind} {split} {seed} {index}")
    drawn = kind
    if kind == "mixed":
        drawn = rng.choices(tuple(MIXTURE), tuple(MIXTURE.values()))[0]
    page = _draw(drawn)(rng, split, level)
    return Record(
        key=f"{kind}-{split}-{seed}-{index:07d}", kind=page.kind, split=split, language="en",
        picture=page.picture, lines=page.lines, things=page.things, table=page.table,
        turns=page.turns, facts=page.facts, seed=seed, licence=LICENCE, source=SOURCE,
    )  # fmt: skip


def _draw(kind: str) -> Draw:
    """Return the drawing function of a kind, imported when it is first wanted."""
    if kind == "lines":
        from handlens.data.generate.lines import draw_lines

        return draw_lines
    if kind == "pages":
        from handlens.data.generate.pages import draw_page

        return draw_page
    if kind == "scenes":
        from handlens.data.generate.scenes import draw_scene

        return draw_scene
    if kind == "receipts":
        from handlens.data.generate.receipts import draw_receipt

        return draw_receipt
    if kind == "labels":
        from handlens.data.generate.labels import draw_label

        return draw_label
    from handlens.data.generate.tables import draw_table

    return draw_table
