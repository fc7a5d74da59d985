"""Cards that look like proof of identity, of countries and people that do not exist.

Boundary: draws one card and asks about it. Every card says SPECIMEN; the country is a made-up
word, the face a drawing, the numbers have no check digit of any real document.
"""

import math
from random import Random

from handlens.data.generate.board import BLACK, WHITE, Board, accent, faces, tint
from handlens.data.generate.fiction import country, person, word
from handlens.data.generate.ink import face_of
from handlens.data.generate.language import Language, language
from handlens.data.generate.page import Colour, Page, Px
from handlens.data.records import Turn

LAYOUTS = ("left", "right", "band")
HELDOUT_LAYOUTS = ("tall",)
FIELDS = ("name", "date of birth", "nationality", "number", "valid until", "city", "company", "room")


def draw_card(rng: Random, split: str, level: float, tongue: Language | None = None) -> Page:
    """Return a card of 3 to 5 fields beside a drawn face."""
    tongue = tongue or language("en")
    layout = rng.choice(HELDOUT_LAYOUTS if split == "heldout" else LAYOUTS)
    land = country(rng, tongue, split)
    keys = ["name", *rng.sample(FIELDS[1:], rng.randint(2, 4))]
    values = {
        "name": person(rng, tongue, split), "date of birth": tongue.date(rng), "nationality": land,
        "number": f"{rng.choice('XYZ')}{rng.choice('XYZ')}{rng.randint(0, 9999999):07d}",
        "valid until": tongue.date(rng),
        "city": word(rng, tongue, split, "city"), "company": country(rng, tongue, split),
        "room": f"{rng.choice('ABCD')}{rng.randint(1, 499)}",
    }  # fmt: skip
    fields = {tongue.word(key): values[key] for key in keys}
    is_tall = layout == "tall"
    width, height = (
        (rng.randint(220, 260), rng.randint(330, 370)) if is_tall else (rng.randint(340, 400), rng.randint(215, 250))
    )
    colour, paper = accent(rng), tint(rng, 214, 246, 18)
    body, bold, _ = faces(rng, tongue, split, rng.randint(11, 13))
    small = face_of(body.font, max(9, body.size_px - 3))
    board = Board(width, height, paper, is_rtl=tongue.is_rtl)
    _guilloche(rng, board, colour)
    kind = tongue.first_upper(tongue.word("identity card"))
    top = bold.height + 14
    if layout == "band":
        board.box((0, 0, width, top), colour)
    head = WHITE if layout == "band" else colour
    board.text(bold, tongue.upper(land), 12, 6 + bold.ascent, head, most_px=width * 0.42)
    board.text(body, kind, width - 12, 6 + bold.ascent, head, anchor="right", most_px=width * 0.46)
    photo_w, photo_h = (80, 96) if is_tall else (84, 104)
    photo_x = (width - photo_w) / 2 if is_tall else width - photo_w - 14 if layout == "right" else 14
    _face(rng, board, photo_x, top + 6, photo_w, photo_h)
    x = 14 if layout == "right" or is_tall else photo_x + photo_w + 14
    room = width - 28 if is_tall else width - photo_w - 42
    at: Px = top + (photo_h + 14 if is_tall else 4)
    step = min(body.height + small.height + 8, (height - at - bold.height - 6) / len(fields))
    for name, value in fields.items():
        board.text(small, name[:1].upper() + name[1:], x, at + small.ascent, (84, 84, 92), most_px=room)
        board.text(bold, value, x, at + small.height + body.ascent, BLACK, most_px=room)
        at += step
    specimen = tongue.upper(tongue.word("specimen"))
    board.text(bold, specimen, width / 2, height - 8, (190, 30, 40), anchor="middle", most_px=width - 30)
    shot = board.shoot(rng, level, margin_px=rng.randint(8, 20) if rng.random() < 0.7 * level else 0)
    return Page(
        kind="cards", picture=shot.picture, lines=shot.lines,
        talk=lambda own: _talk(own, tongue, kind, specimen, fields),
        facts={
            "layout": layout, "font": body.font.file, "clean": shot.clean, "title": kind, "country": tongue.upper(land),
            "specimen": specimen, "fields": fields,
        },
    )  # fmt: skip


def _guilloche(rng: Random, board: Board, colour: Colour) -> None:
    """Draw faint waves, so that text stands on an uneven ground."""
    pale: Colour = tuple(round(p * 0.86 + c * 0.14) for p, c in zip(board.paper, colour, strict=True))  # type: ignore[assignment]
    for i in range(rng.randint(5, 9)):
        phase, wave = rng.uniform(0, 6), rng.uniform(24, 60)
        points = [
            (x, board.height * (i + 0.5) / 8 + 12 * math.sin(x / wave + phase)) for x in range(0, board.width + 8, 8)
        ]
        board.pen.line(points, pale, 1)


def _face(rng: Random, board: Board, x: Px, y: Px, width: Px, height: Px) -> None:
    """Draw the head and shoulders of nobody."""
    x0, y0, x1, y1 = board.box((x, y, x + width, y + height), tint(rng, 190, 235, 20), (110, 110, 118))
    skin = rng.choice(((240, 204, 172), (214, 164, 122), (160, 108, 72), (104, 70, 48)))
    hair = rng.choice(((30, 26, 24), (92, 58, 30), (190, 150, 80), (120, 120, 124)))
    middle, r = (x0 + x1) / 2, width * 0.22
    board.pen.ellipse(
        (middle - width * 0.36, y1 - height * 0.3, middle + width * 0.36, y1 + height * 0.3), tint(rng, 40, 160, 60)
    )
    board.pen.rectangle((x0 + 1, y1, x1 - 1, y1 + height * 0.31), board.paper)
    board.pen.line((x0, y1, x1, y1), (110, 110, 118))
    top = y0 + height * 0.2
    board.pen.ellipse((middle - r * 1.15, top - r * 0.35, middle + r * 1.15, top + r * 2.1), hair)
    board.pen.ellipse((middle - r, top, middle + r, top + r * 2.5), skin)
    for side in (-0.42, 0.42):
        board.pen.ellipse((middle + side * r - 2, top + r - 2, middle + side * r + 2, top + r + 2), (40, 34, 32))
    board.pen.arc((middle - r * 0.45, top + r * 1.3, middle + r * 0.45, top + r * 2.0), 20, 160, (150, 60, 60), 2)


def _talk(rng: Random, tongue: Language, kind: str, specimen: str, fields: dict[str, str]) -> tuple[Turn, ...]:
    """Return two to four turns; a field that is not there is asked for like one that is."""
    absent = [tongue.word(key) for key in FIELDS if tongue.word(key) not in fields]
    asked = rng.sample(list(fields), 2)
    turns = [tongue.ask(rng, "cards.field", "field", fields[name], name=name) for name in asked]
    turns.append(tongue.ask(rng, "cards.missing", "field", tongue.not_present, name=rng.choice(absent)))
    is_there = rng.random() < 0.5
    name = rng.choice(list(fields)) if is_there else rng.choice(absent)
    turns.append(tongue.ask(rng, "cards.has", "has", tongue.yes(is_there), name=name))
    turns.append(tongue.ask(rng, "cards.title", "title", kind))
    return tuple(rng.sample(turns, rng.randint(2, 4)))
