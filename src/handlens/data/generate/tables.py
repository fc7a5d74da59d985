"""Small tables with a header: cells to look up, sizes to count, markdown to write.

Boundary: draws one page and asks about it; ink and camera have their own files.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from random import Random

import numpy as np

from handlens.data.generate.fonts import Font
from handlens.data.generate.ink import Face, face_of, put_text, size_for_x_height, text_width
from handlens.data.generate.language import Language, language
from handlens.data.generate.markup import to_html, to_markdown
from handlens.data.generate.page import Page, ask
from handlens.data.generate.receipt_talk import NOT_PRESENT
from handlens.data.generate.sheet import shoot
from handlens.data.generate.words import code, pool, price
from handlens.data.records import Line, Turn

MAX_WIDTH, MAX_HEIGHT = 460, 300
STYLES = ("ruled", "zebra", "plain", "header")
HELDOUT_STYLES = ("columns",)

Table = tuple[tuple[str, ...], ...]

_CELL = (
    "What is the {column} of {row}?", "Read the {column} of {row}.", "Find the {column} for {row}.",
    "Look up the {column} of {row}.", "What is the {column} for {row}?",
    "What is in the column {column} for {row}?",
)  # fmt: skip
_MARKDOWN = (
    "Convert the table to markdown.", "Write the table as markdown.", "Give the table in markdown.",
    "Turn this table into markdown.", "Transcribe the table as markdown.", "Markdown table, please.",
)  # fmt: skip
_ROWS = (
    "How many rows are below the header?", "How many rows does the table have without the header?",
    "Count the rows below the header.", "How many entries does the table have?",
    "What is the number of rows below the header?",
)  # fmt: skip
_COLUMNS = (
    "How many columns are there?", "How many columns does the table have?", "Count the columns.",
    "What is the number of columns?", "How many columns do you see?",
)  # fmt: skip

_KEYS = {
    "food": ("Item", "Product", "Food"), "product": ("Product", "Article", "Item"),
    "place": ("City", "Place", "Station"), "person": ("Name", "Player", "Person"),
}  # fmt: skip
_VALUES: dict[str, Callable[[Random], str]] = {
    "Price": lambda rng: price(rng, 60.0), "Qty": lambda rng: str(rng.randint(1, 99)),
    "Stock": lambda rng: str(rng.randint(0, 999)), "Code": code,
    "Year": lambda rng: str(rng.randint(1950, 2034)), "Share": lambda rng: f"{rng.randint(0, 100)}%",
    "Score": lambda rng: str(rng.randint(0, 100)), "Weight": lambda rng: f"{rng.randint(1, 99)} kg",
    "Rank": lambda rng: str(rng.randint(1, 50)), "Cost": lambda rng: f"${price(rng, 90.0)}",
    "Level": lambda rng: rng.choice(("low", "high", "normal")),
    "Color": lambda rng: rng.choice(("red", "green", "blue", "black", "white", "gray")),
    "Paid": lambda rng: rng.choice(("yes", "no")), "Room": lambda rng: f"{rng.choice('ABC')}{rng.randint(1, 99)}",
}  # fmt: skip


def draw_table(rng: Random, split: str, level: float, tongue: Language | None = None) -> Page:
    """Return a table of 2 to 4 columns and 2 to 5 rows below its header."""
    tongue = tongue or language("en")
    table = write_table(rng, split) if tongue.code == "en" else _write_in(tongue, rng, split)
    font = rng.choice(tongue.fonts(split))
    style = rng.choice(HELDOUT_STYLES if split == "heldout" else STYLES)
    mask, lines = set_table(rng, table, font, style, is_rtl=tongue.is_rtl)
    margin = rng.randint(6, 14) if rng.random() < 0.3 * level else 0
    picture, lines, clean = shoot(rng, mask, lines, level, margin_px=margin)
    return Page(
        kind="tables", picture=picture, lines=lines, table=table,
        talk=lambda own: _talk(own, table, split) if tongue.code == "en" else _talk_in(tongue, own, table, split),
        facts={
            "style": style, "layout": style, "font": font.file, "clean": clean,
            "markdown": to_markdown(table), "html": to_html(table),
        },
    )  # fmt: skip


def write_table(rng: Random, split: str) -> Table:
    """Invent a table; the first column names its rows and repeats no name."""
    of = rng.choice(tuple(_KEYS))
    columns = rng.sample(tuple(_VALUES), rng.randint(1, 3))
    words = [word for word in pool(of, split) if len(word) <= 10]
    names = [name.title() for name in rng.sample(words, rng.randint(2, 5))]
    case = str.upper if rng.random() < 0.2 else str
    header = tuple(case(name) for name in (rng.choice(_KEYS[of]), *columns))
    rows = tuple((name, *(_VALUES[column](rng) for column in columns)) for name in names)
    return (header, *rows)


def set_table(
    rng: Random, table: Table, font: Font, style: str, *, is_rtl: bool = False
) -> tuple[np.ndarray, tuple[Line, ...]]:
    """Set the cells row by row; lines come back in reading order, one per cell."""
    size = size_for_x_height(font, rng.uniform(8, 12.5))
    pad_x, stretch, edge = rng.uniform(6, 14), rng.uniform(1.25, 1.8), rng.randint(5, 18)
    while True:
        face = face_of(font, size)
        widths = [max(text_width(face, row[i]) for row in table) + 2 * pad_x for i in range(len(table[0]))]
        row_h = face.height * stretch
        fits = sum(widths) + 2 * edge <= MAX_WIDTH and row_h * len(table) + 2 * edge <= MAX_HEIGHT
        if fits or size <= 9:
            break
        size, pad_x = size - 1, max(5.0, pad_x - 1)
    xs = np.rint(edge + np.cumsum([0.0, *widths])).astype(int).tolist()
    ys = np.rint(edge + row_h * np.arange(len(table) + 1)).astype(int).tolist()
    mask = np.zeros((max(56, ys[-1] + edge), xs[-1] + edge), np.uint8)
    _grid(mask, xs if not is_rtl else [xs[0] + xs[-1] - x for x in reversed(xs)], ys, style)
    to_right = [(rng.random() < 0.5 and i > 0) != is_rtl for i in range(len(widths))]
    places = list(pairwise(xs))
    if is_rtl:
        end = xs[0] + xs[-1]
        places = [(end - x1, end - x0) for x0, x1 in places]
    lines = []
    for row, y in zip(table, ys, strict=False):
        base = y + (row_h - face.height) / 2 + face.ascent
        lines += [_cell(mask, face, text, *places[i], pad_x, base, to_right[i])
                  for i, text in enumerate(row)]  # fmt: skip
    return mask, tuple(lines)


def _cell(mask: np.ndarray, face: Face, text: str, x0: int, x1: int, pad: float, base: float, right: bool) -> Line:
    x = x1 - pad - text_width(face, text) if right else x0 + pad
    return put_text(mask, face, text, x, base)


def _grid(mask: np.ndarray, xs: Sequence[int], ys: Sequence[int], style: str) -> None:
    x0, x1, y0, y1 = xs[0], xs[-1], ys[0], ys[-1]
    if style == "ruled":
        for y in ys:
            mask[y - 1 : y, x0:x1] = 200
        for x in xs:
            mask[y0:y1, x - 1 : x] = 200
    elif style == "zebra":
        mask[y0 : ys[1], x0:x1] = 60
        for i in range(2, len(ys) - 1, 2):
            mask[ys[i] : ys[i + 1], x0:x1] = 28
    elif style == "columns":
        for x in xs:
            mask[y0:y1, max(0, x - 1) : x + 1] = 220
        mask[y0 - 1 : y0 + 1, x0:x1] = mask[y1 - 1 : y1 + 1, x0:x1] = 220
    elif style == "header":
        mask[ys[1] - 2 : ys[1], x0:x1] = 220


def _talk(rng: Random, table: Table, split: str) -> tuple[Turn, ...]:
    """Return two to four turns; a missing row is asked for like one that is there."""
    turns = [_cell_turn(rng, table)]
    if rng.random() < 0.5:
        turns.append(ask(rng, "tables.markdown", _MARKDOWN, to_markdown(table)))
    elif rng.random() < 0.15:
        turns.append(language("en").ask(rng, "tables.html", "html", to_html(table)))
    if rng.random() < 0.45:
        is_rows = rng.random() < 0.5
        count = len(table) - 1 if is_rows else len(table[0])
        turns.append(ask(rng, "tables.size", _ROWS if is_rows else _COLUMNS, str(count)))
    if rng.random() < 0.25:
        turns.append(_missing_turn(rng, table, split))
    if len(turns) < 2:
        again = _cell_turn(rng, table)
        turns += [again] if again.question != turns[0].question else []
    rng.shuffle(turns)
    return tuple(turns)


def _cell_turn(rng: Random, table: Table) -> Turn:
    row, column = rng.randrange(1, len(table)), rng.randrange(1, len(table[0]))
    name = table[0][column].lower()
    return ask(rng, "tables.cell", _CELL, table[row][column], column=name, row=table[row][0])


def _missing_turn(rng: Random, table: Table, split: str) -> Turn:
    there = {row[0] for row in table}
    words = [word.title() for word in pool("food", split) + pool("person", split)]
    row = rng.choice([word for word in words if word not in there])
    column = rng.choice(table[0][1:]).lower()
    return ask(rng, "tables.missing", _CELL, NOT_PRESENT, column=column, row=row)


def _write_in(tongue: Language, rng: Random, split: str) -> Table:
    """Invent a table in a language; the first column names its rows and repeats no name."""
    values: dict[str, Callable[[], str]] = {
        "price": lambda: tongue.money(rng), "quantity": lambda: str(rng.randint(1, 99)), "number": lambda: code(rng),
        "date": lambda: tongue.date(rng), "weight": lambda: f"{tongue.decimal(rng.randint(1, 99) / 10, 1)} kg",
        "colour": lambda: rng.choice(tuple(tongue.colours.values())),
        "room": lambda: f"{rng.choice('ABC')}{rng.randint(1, 99)}",
        "time": lambda: tongue.time(rng), "value": lambda: str(rng.randint(0, 999)),
    }  # fmt: skip
    first, names = rng.choice((("item", "food"), ("item", "thing"), ("city", "city"), ("name", "first")))
    keys = rng.sample(tuple(values), rng.randint(1, 3))
    pool = [word for word in tongue.pool(names, split) if len(word) <= 12]
    rows = rng.sample(pool, min(len(pool), rng.randint(2, 5)))
    case = tongue.upper if rng.random() < 0.2 else tongue.first_upper
    header = tuple(case(tongue.word(key)) for key in (first, *keys))
    return (header, *((tongue.first_upper(name), *(values[key]() for key in keys)) for name in rows))


def _talk_in(tongue: Language, rng: Random, table: Table, split: str) -> tuple[Turn, ...]:
    row, column = rng.randrange(1, len(table)), rng.randrange(1, len(table[0]))
    there = {cells[0] for cells in table}
    absent = [tongue.first_upper(word) for word in tongue.pool("all", split) if tongue.first_upper(word) not in there]
    turns = [
        tongue.ask(rng, "tables.cell", "cell", table[row][column], row=table[row][0], column=table[0][column]),
        tongue.ask(rng, "tables.markdown", "markdown", to_markdown(table)),
        tongue.ask(rng, "tables.html", "html", to_html(table)),
        tongue.ask(rng, "tables.size", "rows", str(len(table) - 1)),
        tongue.ask(rng, "tables.size", "columns", str(len(table[0]))),
        tongue.ask(rng, "tables.missing", "cell", tongue.not_present, row=rng.choice(absent), column=table[0][column]),
    ]
    return tuple(rng.sample(turns, rng.randint(2, 4)))
