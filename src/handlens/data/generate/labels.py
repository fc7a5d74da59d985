"""Labels: product, shipping, warning and name labels with a few ``key: value`` lines.

Boundary: draws one page and asks about it; rows and camera are in ``sheet``.
"""

from collections.abc import Callable
from random import Random

import numpy as np

from handlens.data.generate.fonts import Font, fonts_of
from handlens.data.generate.ink import Face, face_of, size_for_x_height
from handlens.data.generate.page import Page, ask
from handlens.data.generate.receipt_talk import NOT_PRESENT
from handlens.data.generate.sheet import Row, set_rows, shoot
from handlens.data.generate.words import code, date, phone, pool, price, pseudo_word
from handlens.data.records import Turn

MIN_WIDTH, MAX_WIDTH = 176, 380
MIN_HEIGHT, MAX_HEIGHT = 80, 224

_FIELD = (
    "What is the {name}?", "Read the {name}.", "What does the label say for {name}?",
    "Find the {name}.", "Which {name} is printed?", "Tell me the {name}.",
)  # fmt: skip
_READ = (
    "Read the label.", "What does the label say?", "Transcribe the label.",
    "What is written on the label?", "Write down the text of the label.", "Read all the text.",
)  # fmt: skip
_TITLE = (
    "What is the title of the label?", "What does the first line say?", "Read the first line.",
    "What is at the top of the label?", "What is the heading?",
)  # fmt: skip

Value = Callable[[Random, str], str]


def _name(rng: Random, split: str) -> str:
    return f"{rng.choice(pool('person', split))} {rng.choice(pool('person', split))}".title()


def _word(pool_name: str) -> Value:
    return lambda rng, split: rng.choice(pool(pool_name, split)).title()


def _brand(rng: Random, split: str) -> str:
    return pseudo_word(rng, split, 10).title()


def _amount(rng: Random, split: str) -> str:
    return rng.choice((f"{rng.randint(5, 95) * 10} g", f"{rng.randint(1, 40) / 10} kg",
                       f"{rng.randint(1, 30) * 50} ml", f"{rng.randint(1, 60)} pcs"))  # fmt: skip


def _plain(make: Callable[[Random], str]) -> Value:
    return lambda rng, split: make(rng)


def _limit(rng: Random, split: str) -> str:
    return rng.choice((f"{rng.randint(20, 400)} °C", f"{rng.randint(1, 40) * 10} V",
                       f"{rng.randint(2, 900)} kg", f"{rng.randint(5, 60)} km/h"))  # fmt: skip


FAMILIES: dict[str, dict[str, Value]] = {
    "product": {
        "weight": _amount, "date": _plain(date), "lot": _plain(code),
        "price": lambda rng, split: rng.choice("$€£") + price(rng, 60.0), "origin": _word("place"),
        "size": lambda rng, split: rng.choice(("XS", "S", "M", "L", "XL", "38", "40", "42")),
        "brand": _brand, "model": _plain(code), "color": lambda rng, split: rng.choice(
            ("red", "blue", "green", "black", "white", "gray", "brown", "pink")).title(),
    },
    "shipping": {
        "sender": _brand, "recipient": _name, "city": _word("place"), "order": _plain(code),
        "weight": lambda rng, split: f"{rng.randint(1, 300) / 10} kg", "phone": _plain(phone),
        "date": _plain(date), "tracking": _plain(code), "service": _word("office"),
    },
    "warning": {
        "limit": _limit, "code": _plain(code), "room": lambda rng, split: f"{rng.randint(1, 499)}",
        "phone": _plain(phone), "area": _word("place"), "level": lambda rng, split: f"{rng.randint(1, 9)}",
    },
    "name": {
        "name": _name, "role": _word("office"), "company": _brand, "room": lambda rng, split:
            f"{rng.choice('ABCD')}{rng.randint(1, 499)}", "badge": _plain(code),
        "team": _word("place"), "date": _plain(date),
    },
}  # fmt: skip
"""Field names of each family with what prints their values."""


def draw_label(rng: Random, split: str, level: float) -> Page:
    """Return a label of two to five lines, the first usually a title."""
    family = rng.choice(tuple(FAMILIES))
    title = _title(rng, split, family) if rng.random() < 0.8 else ""
    count = rng.randint(1, 4) if title else rng.randint(2, 5)
    names = rng.sample(tuple(FAMILIES[family]), count)
    fields = {name: FAMILIES[family][name](rng, split) for name in names}
    case = rng.choice((str.title, str.title, str.upper, str.lower))
    mark = rng.choice((": ", ": ", ":  ", " "))
    keys = {name: case(name) + mark.rstrip() for name in names}
    font = rng.choice(fonts_of(split))
    rows, width, height, pad = _fit(rng, title, keys, fields, font, spread=rng.random() < 0.25)
    mask, lines = set_rows(rows, width, height, pad, top=_top(rows, height))
    _decorate(rng, mask, rows, height, bool(title))
    margin = rng.randint(6, 16) if rng.random() < 0.3 * level else 0
    picture, lines, clean = shoot(rng, mask, lines, level, margin_px=margin)
    printed = [" ".join(row.texts) for row in rows]
    return Page(
        kind="labels", picture=picture, lines=lines,
        turns=_talk(rng, family, title, fields, printed),
        facts={"family": family, "title": title, "fields": fields, "font": font.file, "clean": clean},
    )  # fmt: skip


def _title(rng: Random, split: str, family: str) -> str:
    if family == "name":
        return rng.choice(("HELLO", "Hello my name is", "VISITOR", "STAFF", "Guest"))
    if family == "shipping":
        return rng.choice((*pool("office", split), "SHIP TO")).upper()
    if family == "warning":
        thing = rng.choice(pool("warning", split))
        return f"{rng.choice(('WARNING', 'CAUTION', 'DANGER', 'NOTICE'))} {thing.upper()}"
    words = [rng.choice(pool(name, split)) for name in ("shop", rng.choice(("food", "product")))]
    return " ".join(words).title()


def _fit(
    rng: Random, title: str, keys: dict[str, str], fields: dict[str, str], font: Font, *, spread: bool
) -> tuple[list[Row], int, int, float]:  # fmt: skip
    """Pick the largest size, up to a drawn one, at which the label fits a slice's height."""
    size = size_for_x_height(font, rng.uniform(8.5, 16))
    pad, gap, scale = rng.uniform(9, 18), rng.uniform(1.15, 1.5), rng.choice((1.0, 1.3, 1.6))
    while True:
        face, big = face_of(font, size), face_of(font, round(size * scale))
        rows = [_title_row(rng, title, big, gap)] if title else []
        for name, value in fields.items():
            texts = {"left": keys[name], "right": value} if spread else {"left": f"{keys[name]} {value}"}
            rows.append(Row(face=face, gap=gap, **texts))
        width = max(row.width_px() for row in rows) + 2 * pad
        height = sum(row.height_px for row in rows) + 18
        if (width <= MAX_WIDTH and height <= MAX_HEIGHT) or size <= 9:
            break
        if scale > 1.0:
            scale = max(1.0, scale - 0.3)
        else:
            size -= 1
    wide = min(MAX_WIDTH, max(MIN_WIDTH, width + rng.uniform(0, 40)))
    tall = min(MAX_HEIGHT, max(MIN_HEIGHT, height + rng.uniform(0, 30)))
    return rows, round(wide), round(tall), pad


def _title_row(rng: Random, title: str, face: Face, gap: float) -> Row:
    return Row(face=face, middle=title, gap=gap)


def _top(rows: list[Row], height: int) -> float:
    return max(4.0, (height - sum(row.height_px for row in rows)) / 2)


def _decorate(rng: Random, mask: np.ndarray, rows: list[Row], height: int, has_title: bool) -> None:
    """Add a frame, or turn the title into paper-coloured letters on a band of ink."""
    roll = rng.random()
    if roll < 0.3:
        for edge in (mask[2:4, 2:-2], mask[-4:-2, 2:-2], mask[2:-2, 2:4], mask[2:-2, -4:-2]):
            edge[...] = 230
    elif roll < 0.55 and has_title:
        end = round(_top(rows, height) + rows[0].height_px)
        mask[:end] = 255 - mask[:end]


def _talk(rng: Random, family: str, title: str, fields: dict[str, str], printed: list[str]) -> tuple[Turn, ...]:
    """Ask for the whole label, for fields that are there and for one that is not."""
    names = list(fields)
    rng.shuffle(names)
    names = names[: rng.randint(1, 2)]
    turns = [ask(rng, "labels.field", _FIELD, fields[name], name=name) for name in names]
    if rng.random() < 0.5:
        turns.append(ask(rng, "labels.read", _READ, "\n".join(printed)))
    absent = [name for name in FAMILIES[family] if name not in fields]
    if absent and rng.random() < 0.4:
        turns.append(ask(rng, "labels.missing", _FIELD, NOT_PRESENT, name=rng.choice(absent)))
    if len(turns) < 2 or (title and rng.random() < 0.2):
        turns.append(ask(rng, "labels.field", _TITLE, printed[0]))
    rng.shuffle(turns)
    return tuple(turns)
