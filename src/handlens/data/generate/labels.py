"""Labels: product, shipping, warning and name labels with a few ``key: value`` lines.

Boundary: draws one page and asks about it; rows and camera are in ``sheet``.
"""

from collections.abc import Callable
from random import Random

import numpy as np

from handlens.data.generate import fiction
from handlens.data.generate.fonts import Font
from handlens.data.generate.ink import Face, face_of, size_for_x_height
from handlens.data.generate.language import Language, language
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


LAYOUTS = ("beside", "beside", "beside", "spread")
HELDOUT_LAYOUTS = ("stacked",)
FIELDS_IN = {
    "product": ("weight", "date", "number", "price", "country", "size", "company", "colour", "valid until"),
    "shipping": ("sender", "recipient", "city", "order", "weight", "phone", "date", "number"),
    "warning": ("number", "room", "phone", "city", "date"),
    "name": ("name", "company", "room", "number", "date", "city"),
}
"""Fields of each family in the languages beside English, as the language files name them."""

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


def draw_label(rng: Random, split: str, level: float, tongue: Language | None = None) -> Page:
    """Return a label of two to five lines, the first usually a title."""
    tongue = tongue or language("en")
    layout = rng.choice(HELDOUT_LAYOUTS if split == "heldout" else LAYOUTS)
    family = rng.choice(tuple(FAMILIES))
    has_title = rng.random() < 0.8
    title = (
        (_title(rng, split, family) if tongue.code == "en" else _title_in(tongue, rng, split, family))
        if has_title
        else ""
    )
    count = rng.randint(1, 4) if title else rng.randint(2, 5)
    if layout == "stacked":
        count = min(count, 3)
    if tongue.code == "en":
        names = rng.sample(tuple(FAMILIES[family]), count)
        fields = {name: FAMILIES[family][name](rng, split) for name in names}
    else:
        names = rng.sample(FIELDS_IN[family], count)
        fields = {tongue.word(name): _value_in(tongue, rng, split, name) for name in names}
    case = rng.choice(
        (str.title, str.title, str.upper, str.lower) if tongue.code == "en" else (tongue.first_upper, tongue.upper, str)
    )
    mark = rng.choice((": ", ": ", ":  ", " "))
    keys = {name: case(name) + mark.rstrip() for name in fields}
    font = rng.choice(tongue.fonts(split))
    rows, width, height, pad = _fit(rng, title, keys, fields, font, layout)
    mask, lines = set_rows(rows, width, height, pad, top=_top(rows, height), is_rtl=tongue.is_rtl)
    _decorate(rng, mask, rows, height, bool(title))
    margin = rng.randint(6, 16) if rng.random() < 0.3 * level else 0
    picture, lines, clean = shoot(rng, mask, lines, level, margin_px=margin)
    printed = [" ".join(row.texts) for row in rows]
    return Page(
        kind="labels", picture=picture, lines=lines,
        talk=lambda own: _talk(own, family, title, fields, printed, tongue),
        facts={
            "family": family, "title": title, "fields": fields, "font": font.file, "clean": clean, "layout": layout,
        },
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
    rng: Random, title: str, keys: dict[str, str], fields: dict[str, str], font: Font, layout: str
) -> tuple[list[Row], int, int, float]:  # fmt: skip
    """Pick the largest size, up to a drawn one, at which the label fits a slice's height."""
    size = size_for_x_height(font, rng.uniform(8.5, 16))
    pad, gap, scale = rng.uniform(9, 18), rng.uniform(1.15, 1.5), rng.choice((1.0, 1.3, 1.6))
    while True:
        face, big = face_of(font, size), face_of(font, round(size * scale))
        rows = [_title_row(rng, title, big, gap)] if title else []
        for name, value in fields.items():
            if layout == "stacked":
                rows += [Row(face=face, left=keys[name], gap=1.05), Row(face=face, left=value, gap=gap)]
            elif layout == "spread":
                rows.append(Row(face=face, gap=gap, left=keys[name], right=value))
            else:
                rows.append(Row(face=face, gap=gap, left=f"{keys[name]} {value}"))
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


def _talk(
    rng: Random, family: str, title: str, fields: dict[str, str], printed: list[str], tongue: Language
) -> tuple[Turn, ...]:
    """Ask for the whole label, for fields that are there and for one that is not."""
    if tongue.code != "en":
        return _talk_in(tongue, rng, family, fields, printed)
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


def _title_in(tongue: Language, rng: Random, split: str, family: str) -> str:
    if family == "name":
        return tongue.first_upper(tongue.word("welcome"))
    if family == "warning":
        return tongue.upper(rng.choice(tongue.pool("sign", split)))
    return fiction.company(rng, tongue, split)


def _value_in(tongue: Language, rng: Random, split: str, key: str) -> str:
    """Return a value for a field in a language."""
    if key in ("name", "recipient"):
        return fiction.person(rng, tongue, split)
    if key in ("company", "sender"):
        return fiction.company(rng, tongue, split)
    if key in ("date", "valid until"):
        return tongue.date(rng)
    if key == "colour":
        return rng.choice(tuple(tongue.colours.values()))
    if key == "weight":
        return f"{tongue.decimal(rng.randint(1, 300) / 10, 1)} kg"
    if key == "size":
        return rng.choice(("XS", "S", "M", "L", "XL", "38", "40", "42"))
    if key == "room":
        return f"{rng.choice('ABCD')}{rng.randint(1, 499)}"
    made: dict[str, Callable[[], str]] = {
        "price": lambda: tongue.money(rng), "phone": lambda: tongue.phone(rng),
        "city": lambda: fiction.word(rng, tongue, split, "city"),
        "country": lambda: fiction.country(rng, tongue, split),
    }  # fmt: skip
    return made[key]() if key in made else fiction.account(rng)


def _talk_in(
    tongue: Language, rng: Random, family: str, fields: dict[str, str], printed: list[str]
) -> tuple[Turn, ...]:
    name = rng.choice(list(fields))
    absent = [tongue.word(key) for key in FIELDS_IN[family] if tongue.word(key) not in fields]
    turns = [
        tongue.ask(rng, "labels.field", "field", fields[name], name=name),
        tongue.ask(rng, "labels.read", "read", "\n".join(printed)),
    ]
    if absent and rng.random() < 0.4:
        turns.append(tongue.ask(rng, "labels.missing", "field", tongue.not_present, name=rng.choice(absent)))
    rng.shuffle(turns)
    return tuple(turns)
