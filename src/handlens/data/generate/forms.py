"""Filled-in forms: fields with and without a value, boxes with and without a tick.

Boundary: draws one page and asks about it; canvas and camera are in ``board``.
"""

from random import Random

from handlens.data.generate.board import BLACK, Board, accent, faces, tint
from handlens.data.generate.fiction import account, address, company, country, mail, person, word
from handlens.data.generate.ink import Face, face_of
from handlens.data.generate.language import Language, language
from handlens.data.generate.page import Colour, Page, Px
from handlens.data.records import Box, Turn

LAYOUTS = ("beside", "above", "boxed")
HELDOUT_LAYOUTS = ("pairs",)
FIELDS = (
    "name", "date of birth", "address", "city", "country", "phone", "email", "nationality", "number", "date",
    "company", "room", "customer", "order", "valid until", "price",
)  # fmt: skip


def draw_form(rng: Random, split: str, level: float, tongue: Language | None = None) -> Page:
    """Return a form of 4 to 8 fields, of which some are empty, and up to 4 tick boxes."""
    tongue = tongue or language("en")
    layout = rng.choice(HELDOUT_LAYOUTS if split == "heldout" else LAYOUTS)
    keys = rng.sample(FIELDS, rng.randint(4, 8))
    fields = {tongue.word(key): _value(rng, tongue, split, key) if rng.random() < 0.8 else None for key in keys}
    pool = [w for w in tongue.pool("food", split) + tongue.pool("product", split) if len(w) <= 12]
    names = [tongue.first_upper(name) for name in rng.sample(pool, min(rng.randint(0, 4), len(pool)))]
    ticks = {name: rng.random() < 0.5 for name in names}
    body, _, title = faces(rng, tongue, split, rng.randint(11, 14))
    pens = tongue.fonts(split)
    hand = face_of(rng.choice(pens), body.size_px + rng.randint(0, 2))
    board = Board(rng.randint(300, 400), 640, tint(rng, 238, 255, 6), is_rtl=tongue.is_rtl)
    heading = tongue.first_upper(tongue.word("form"))
    if rng.random() < 0.6:
        heading = f"{heading} {account(rng)}"
    board.text(title, heading, 16, 12 + title.ascent, accent(rng), most_px=board.width - 32)
    ink = rng.choice((BLACK, (20, 40, 140), (60, 60, 66), (24, 70, 150)))
    at = _place_fields(board, fields, layout, body, hand, ink, 20 + title.height)
    boxes, at = _place_ticks(rng, board, ticks, body, ink, at)
    board.trim(at + rng.randint(6, 24))
    shot = board.shoot(rng, level, boxes=boxes, margin_px=rng.randint(6, 14) if rng.random() < 0.3 * level else 0)
    return Page(
        kind="forms", picture=shot.picture, lines=shot.lines,
        talk=lambda own: _talk(own, tongue, heading, fields, ticks),
        facts={
            "layout": layout, "font": body.font.file, "clean": shot.clean, "title": heading, "fields": fields,
            "ticks": ticks,
            "tick_boxes": [[round(value, 1) for value in box] for box in shot.boxes],
        },
    )  # fmt: skip


def _value(rng: Random, tongue: Language, split: str, key: str) -> str:
    if key in ("name", "customer"):
        return person(rng, tongue, split)
    if key in ("date of birth", "date", "valid until"):
        return tongue.date(rng)
    if key == "address":
        return address(rng, tongue, split)
    if key in ("country", "nationality"):
        return country(rng, tongue, split)
    if key == "email":
        return mail(rng, tongue, split)
    if key == "price":
        return tongue.money(rng)
    if key == "room":
        return f"{rng.choice('ABCD')}{rng.randint(1, 499)}"
    made = {"city": lambda: word(rng, tongue, split, "city"), "phone": lambda: tongue.phone(rng)}
    if key in made:
        return made[key]()
    return company(rng, tongue, split) if key == "company" else account(rng)


def _place_fields(
    board: Board, fields: dict[str, str | None], layout: str, body: Face, hand: Face, ink: Colour, at: Px
) -> Px:
    """Print labels and values; returns where the fields end."""
    row = max(body.height, hand.height)
    if layout == "pairs":
        return _place_pairs(board, fields, body, hand, ink, at)
    for name, value in fields.items():
        label = name[:1].upper() + name[1:]
        if layout == "beside":
            base = at + row * 1.05
            board.text(body, f"{label}:", 16, base, (70, 70, 76), most_px=board.width * 0.38)
            start = board.width * 0.44
            board.rule(start, base + hand.descent + 2, board.width - 16, (130, 130, 136))
            at += row * 1.55
        else:
            base = at + row * (2.0 if layout == "above" else 2.15)
            board.text(body, label, 16, at + row * 0.9, (70, 70, 76), most_px=board.width - 40)
            start = 20
            if layout == "boxed":
                board.box((15, at + row * 1.12, board.width - 15, base + hand.descent + 4), None, (120, 120, 126))
            else:
                board.rule(16, base + hand.descent + 2, board.width - 16, (130, 130, 136))
            at += row * 2.6
        if value:
            board.text(hand, value, start + 4, base, ink, most_px=board.width - start - 24)
    return at


def _place_pairs(board: Board, fields: dict[str, str | None], body: Face, hand: Face, ink: Colour, at: Px) -> Px:
    """Print two fields to a row, each in a cell with a small label."""
    half = (board.width - 32) / 2
    row = body.height + hand.height
    for i, (name, value) in enumerate(fields.items()):
        x, top = 16 + half * (i % 2), at + (i // 2) * row * 1.25
        board.box((x, top, x + half, top + row * 1.25), None, (110, 110, 118))
        small = face_of(body.font, max(9, body.size_px - 2))
        board.text(small, name[:1].upper() + name[1:], x + 4, top + small.ascent + 3, (90, 90, 98), most_px=half - 8)
        if value:
            board.text(hand, value, x + 4, top + row * 1.25 - hand.descent - 4, ink, most_px=half - 8)
    return at + ((len(fields) + 1) // 2) * row * 1.25 + 8


def _place_ticks(
    rng: Random, board: Board, ticks: dict[str, bool], body: Face, ink: Colour, at: Px
) -> tuple[list[Box], Px]:
    """Draw tick boxes with their names; returns the boxes and where they end."""
    side, boxes = max(9, body.size_px - 2), []
    style = rng.choice(("cross", "tick", "fill"))
    at += 6
    for name, is_on in ticks.items():
        x0, y0, x1, y1 = board.box((18, at, 18 + side, at + side), (252, 252, 252), (60, 60, 66))
        boxes.append((x0, y0, x1, y1))
        if is_on and style == "fill":
            board.pen.rectangle((x0 + 2, y0 + 2, x1 - 2, y1 - 2), ink)
        elif is_on and style == "cross":
            board.pen.line((x0 + 1, y0 + 1, x1 - 1, y1 - 1), ink, 2)
            board.pen.line((x0 + 1, y1 - 1, x1 - 1, y0 + 1), ink, 2)
        elif is_on:
            board.pen.line((x0 + 1, y0 + side * 0.5, x0 + side * 0.4, y1 - 1, x1 + 2, y0 - 2), ink, 2)
        board.text(body, name, 18 + side + 8, at + side - 1, most_px=board.width - side - 44)
        at += max(side, body.height) + 6
    return boxes, at


def _talk(
    rng: Random, tongue: Language, heading: str, fields: dict[str, str | None], ticks: dict[str, bool]
) -> tuple[Turn, ...]:
    """Return two to five turns; empty and missing fields are asked for like those with a value."""
    full = {name: value for name, value in fields.items() if value}
    empty = [name for name, value in fields.items() if not value]
    absent = [tongue.word(key) for key in FIELDS if tongue.word(key) not in fields]
    turns = [tongue.ask(rng, "forms.title", "title", heading)]
    asked_for = rng.sample(list(full), min(2, len(full)))
    turns += [tongue.ask(rng, "forms.field", "field", full[name], name=name) for name in asked_for]
    turns.append(tongue.ask(rng, "forms.missing", "field", tongue.not_present, name=rng.choice(empty or absent)))
    turns.append(tongue.ask(rng, "forms.missing", "field", tongue.not_present, name=rng.choice(absent)))
    if full:
        is_there = rng.random() < 0.5
        asked = rng.choice(list(full)) if is_there else rng.choice(empty or absent)
        turns.append(tongue.ask(rng, "forms.has", "has", tongue.yes(is_there), name=asked))
    wanted = rng.random() < 0.5
    names = [name for name, is_on in ticks.items() if is_on == wanted]
    if names:
        turns.append(tongue.ask(rng, "forms.ticked", "ticked", tongue.yes(wanted), name=rng.choice(names)))
    return tuple(rng.sample(turns, min(len(turns), rng.randint(2, 5))))
