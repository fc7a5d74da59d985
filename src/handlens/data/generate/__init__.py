"""Generated pictures with everything that is true of them.

Boundary: no torch; the same arguments give the same bytes on every run.
"""

import importlib
from collections.abc import Callable, Sequence
from random import Random

from handlens.data.generate.board import Overfull
from handlens.data.generate.language import LANGUAGES, Language, language
from handlens.data.generate.page import Page
from handlens.data.records import Record, Turn
from handlens.errors import DataError, did_you_mean

KINDS: tuple[str, ...] = (
    "lines", "pages", "receipts", "labels", "invoices", "forms", "letters", "tables", "charts", "formulas",
    "screens", "scenes", "cards", "maps", "mixed",
)  # fmt: skip
SPLITS: tuple[str, ...] = ("train", "validation", "heldout")
MIXTURE: dict[str, int] = {
    "lines": 22, "scenes": 18, "receipts": 12, "labels": 8, "tables": 8, "charts": 6, "invoices": 5, "forms": 5,
    "screens": 4, "letters": 3, "formulas": 3, "cards": 3, "maps": 3,
}  # fmt: skip
"""Shares of ``mixed`` in percent."""

LICENCE = "CC0-1.0"
SOURCE = "handlens.data.generate"

WHOLE_TASKS = (".read", ".describe", ".markdown", ".html")
"""Endings of the tasks whose answer tells the whole picture."""

Draw = Callable[[Random, str, float, Language], Page]


def generate(
    kind: str, seed: int, index: int, *, split: str = "train", level: float = 1.0, languages: Sequence[str] = ("en",),
    turns: int = 0,
) -> Record:  # fmt: skip
    """Return picture number ``index`` of a kind; a pure function of its arguments.

    ``split`` is train, validation (as train, other draws) or heldout (words, fonts and layouts
    that train never shows). ``level`` 0 to 1 scales damage and difficulty. Where several
    ``languages`` are given, pictures take them in turn. Each picture is asked about as its kind is,
    mostly two to four times, and again until there are at least ``turns`` different questions or no
    more are found; the whole is read or described once at most.

    Raises:
        DataError: an unknown kind, split or language, a language that cannot be drawn in this
            kind or for lack of a font of the system, or a level outside 0..1.
        NeedsExtra: what the language needs is not installed.
    """
    if kind not in KINDS:
        raise DataError(f"unknown kind '{kind}'{did_you_mean(kind, KINDS)}")
    if split not in SPLITS:
        raise DataError(f"unknown split '{split}'{did_you_mean(split, SPLITS)}")
    if not 0.0 <= level <= 1.0:
        raise DataError(f"level is {level}; needed is 0 (clean) to 1 (careless photo)")
    if not languages:
        raise DataError("no language is given; needed is one code or more, such as en")
    tongue = language(languages[index % len(languages)])
    mark = "" if tongue.code == "en" else f" {tongue.code}"
    rng = Random(f"handlens {kind} {split} {seed} {index}{mark}")
    shares = {name: share for name, share in MIXTURE.items() if not tongue.kinds or name in tongue.kinds}
    drawn = rng.choices(tuple(shares), tuple(shares.values()))[0] if kind == "mixed" else kind
    if tongue.kinds and drawn not in tongue.kinds:
        raise DataError(
            f"{tongue.name} ('{tongue.code}') cannot be drawn as {kind}; it can as: {', '.join(tongue.kinds)}"
        )
    page = _draw_until_it_fits(_draw(drawn), rng, split, level, tongue)
    name = kind if tongue.code == "en" else f"{kind}-{tongue.code}"
    return Record(
        key=f"{name}-{split}-{seed}-{index:07d}", kind=page.kind, split=split, language=tongue.code,
        picture=page.picture, lines=page.lines, things=page.things, table=page.table,
        turns=_draw_turns(page, rng, turns), facts=page.facts, seed=seed, licence=LICENCE, source=SOURCE,
    )  # fmt: skip


def _draw_until_it_fits(draw: Draw, rng: Random, split: str, level: float, tongue: Language) -> Page:
    """Draw again, with the next random words, while a word is too long for its place."""
    for _ in range(99):
        try:
            return draw(rng, split, level, tongue)
        except Overfull:
            continue
    return draw(rng, split, level, tongue)


def _draw_turns(page: Page, rng: Random, wanted: int) -> tuple[Turn, ...]:
    """Draw questions, and more of them while there are fewer than wanted."""
    drawn = page.talk(rng)
    for _ in range(wanted):
        if len(drawn) >= wanted:
            break
        for turn in page.talk(rng):
            if not any(_is_told(turn, before, page.kind) for before in drawn):
                drawn += (turn,)
    return drawn


def _is_told(turn: Turn, before: Turn, kind: str) -> bool:
    """True where an earlier answer holds this one: the same question, the whole again, or a name in other words."""
    if turn.task != before.task:
        return False
    is_name = kind != "scenes" and len(turn.answer) > 3
    return (
        turn.question == before.question
        or turn.task.endswith(WHOLE_TASKS)
        or (is_name and turn.answer == before.answer)
    )


def languages_of(kind: str) -> tuple[str, ...]:
    """Return the codes of the languages that a kind can be drawn in."""
    every = (language(code) for code in LANGUAGES)
    return tuple(tongue.code for tongue in every if not tongue.kinds or kind in tongue.kinds or kind == "mixed")


_DRAWN_BY = {
    "lines": "lines.draw_lines", "pages": "pages.draw_page", "receipts": "receipts.draw_receipt",
    "labels": "labels.draw_label", "invoices": "invoices.draw_invoice", "forms": "forms.draw_form",
    "letters": "letters.draw_letter", "tables": "tables.draw_table", "charts": "charts.draw_chart",
    "formulas": "formulas.draw_formula", "screens": "screens.draw_screen", "scenes": "scenes.draw_scene",
    "cards": "cards.draw_card", "maps": "maps.draw_map",
}  # fmt: skip


def _draw(kind: str) -> Draw:
    """Return the drawing function of a kind, imported when it is first wanted."""
    module, name = _DRAWN_BY[kind].split(".")
    draw: Draw = getattr(importlib.import_module(f"handlens.data.generate.{module}"), name)
    return draw


__all__ = ["KINDS", "LANGUAGES", "MIXTURE", "SPLITS", "generate", "languages_of"]
