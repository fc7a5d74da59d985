"""Screens: an editor with code, a chat with messages.

Boundary: draws one screen and asks about it; canvas and camera are in ``board``.
"""

from random import Random

from handlens.data.generate.board import BLACK, WHITE, Board, Overfull, accent, faces, tint, wrap
from handlens.data.generate.code import KEYWORDS, write_code
from handlens.data.generate.fiction import account
from handlens.data.generate.ink import Face, around, face_of, text_width
from handlens.data.generate.language import Language, language
from handlens.data.generate.page import Colour, Page, Px
from handlens.data.records import Line, Turn

LAYOUTS = ("light", "dark", "bubbles")
HELDOUT_LAYOUTS = ("terminal", "list")


def draw_screen(rng: Random, split: str, level: float, tongue: Language | None = None) -> Page:
    """Return a screen of code or, as often, of a chat."""
    tongue = tongue or language("en")
    layout = rng.choice(HELDOUT_LAYOUTS if split == "heldout" else (*LAYOUTS, "bubbles"))
    if layout in ("light", "dark", "terminal"):
        return _draw_code(rng, split, level, layout, tongue)
    return _draw_chat(rng, split, level, layout, tongue)


def _draw_code(rng: Random, split: str, level: float, layout: str, tongue: Language) -> Page:
    english = language("en")
    mono = [
        font for font in english.fonts(split, ("mono",)) if "Italic" not in font.file and "Oblique" not in font.file
    ]
    face = face_of(rng.choice(mono), rng.randint(12, 15))
    ending, texts = write_code(rng, english, split)
    name = f"{rng.choice(english.pool('office', split))}.{ending}"
    has_numbers = rng.random() < 0.5
    left = 12 + (text_width(face, "99 ") if has_numbers else 0)
    width = max(200, round(max(text_width(face, text) for text in texts) + left + 16))
    row = face.height * 1.3
    is_dark = layout != "light"
    paper = {"light": tint(rng, 244, 255, 4), "dark": tint(rng, 24, 44, 8), "terminal": (8, 12, 8)}[layout]
    ink: Colour = (120, 240, 120) if layout == "terminal" else (226, 226, 222) if is_dark else BLACK
    bar = round(face.height * 1.7)
    board = Board(width, round(bar + row * len(texts) + 12), paper)
    board.box((0, 0, width, bar), (52, 56, 66) if is_dark else (214, 218, 226))
    for i, colour in enumerate(((230, 90, 80), (230, 190, 70), (90, 190, 90))):
        board.pen.ellipse((8 + i * 14, bar / 2 - 4, 16 + i * 14, bar / 2 + 4), colour)
    board.text(
        face,
        name,
        width - 10,
        bar / 2 + face.ascent * 0.4,
        WHITE if is_dark else BLACK,
        anchor="right",
        most_px=width - 70,
    )
    at: Px = bar + 6 + face.ascent
    for number, text in enumerate(texts, 1):
        if has_numbers:
            board.text(face, str(number), left - 8, at, (130, 134, 142), anchor="right", keep=False)
        if text:
            _put_code(board, face, text, left, at, ink, layout)
        at += row
    shot = board.shoot(rng, level)
    return Page(
        kind="screens", picture=shot.picture, lines=shot.lines,
        talk=lambda own: _talk_code(own, tongue, name, texts),
        facts={"layout": layout, "font": face.font.file, "clean": shot.clean, "title": name, "code": "\n".join(texts),
               "numbered": has_numbers},
    )  # fmt: skip


def _put_code(board: Board, face: Face, text: str, x: Px, at: Px, ink: Colour, layout: str) -> None:
    """Print one line of code, keywords, numbers and strings in colours of their own, as one line of the record."""
    parts: list[Line] = []
    inks: dict[str, Colour] = {"word": (150, 60, 170), "number": (180, 90, 20), "text": (40, 130, 60)}
    if layout == "dark":
        inks = {"word": (205, 150, 240), "number": (240, 180, 120), "text": (160, 220, 140)}
    for piece in _pieces(text):
        kind = "word" if piece in KEYWORDS else "number" if piece.isdigit() else "text" if piece[0] in "\"'" else ""
        colour = inks[kind] if kind and layout != "terminal" else ink
        parts.append(board.text(face, piece, x, at, colour, keep=False))
        x += text_width(face, piece)
    glyphs = tuple(glyph for part in parts for glyph in part.glyphs)
    board.lines.append(Line(text=text, box=around([glyph.box for glyph in glyphs]), glyphs=glyphs))


def _pieces(text: str) -> list[str]:
    """Cut a line of code in words, numbers, strings and the rest, nothing lost."""
    out: list[str] = []
    quote = ""
    for char in text:
        kind = "w" if char.isalnum() or char == "_" else "x"
        if quote:
            out[-1] += char
            quote = "" if char == quote else quote
        elif char in "\"'":
            out.append(char)
            quote = char
        elif out and kind == "w" and (out[-1][-1].isalnum() or out[-1][-1] == "_") and out[-1][0] not in "\"'":
            out[-1] += char
        else:
            out.append(char)
    return out


def _talk_code(rng: Random, tongue: Language, name: str, texts: list[str]) -> tuple[Turn, ...]:
    number = rng.choice([i for i, text in enumerate(texts) if text])
    turns = [
        tongue.ask(rng, "screens.code", "code", "\n".join(texts)),
        tongue.ask(rng, "screens.line", "line", texts[number].strip(), n=str(number + 1)),
        tongue.ask(rng, "screens.title", "title", name),
    ]
    return tuple(rng.sample(turns, rng.randint(1, 3)))


def _draw_chat(rng: Random, split: str, level: float, layout: str, tongue: Language) -> Page:
    """Draw a chat; in bubbles the other speaks at the side where reading starts."""
    body, bold, _ = faces(rng, tongue, split, rng.randint(12, 14), ("sans",))
    small = face_of(body.font, max(9, body.size_px - 3))
    names = [tongue.first_upper(name) for name in rng.sample(tongue.pool("first", split), 2)]
    is_dark = rng.random() < 0.35
    paper = tint(rng, 20, 40, 6) if is_dark else tint(rng, 228, 250, 8)
    board = Board(rng.randint(260, 340), 620, paper, is_rtl=tongue.is_rtl)
    width, row = board.width, body.height * 1.2
    board.box((0, 0, width, row * 1.8), accent(rng))
    group = tongue.first_upper(rng.choice(tongue.pool("place", split))) + " " + account(rng)
    board.text(bold, group, 14, row * 1.2, WHITE, most_px=width - 28)
    at, messages = row * 1.8 + 8, list[tuple[str, str, str]]()
    hour, minute = rng.randint(7, 20), rng.randint(0, 40)
    for _ in range(rng.randint(3, 5)):
        who = rng.randrange(2)
        text = tongue.sentence(rng, split, "chat", time=tongue.time(rng), total=tongue.money(rng))
        if any(text == said for _, said, _ in messages):
            continue
        minute += rng.randint(1, 3)
        when = f"{hour:02d}:{minute:02d}"
        messages.append((names[who], text, when))
        at = _put_message(
            board, body, bold, small, names[who], text, when, who == 1, layout == "list", is_dark, at, row
        )
    if not messages:
        raise Overfull(group)
    board.trim(at + rng.randint(2, 14))
    shot = board.shoot(rng, level)
    return Page(
        kind="screens", picture=shot.picture, lines=shot.lines,
        talk=lambda own: _talk_chat(own, tongue, group, messages),
        facts={"layout": layout, "font": body.font.file, "clean": shot.clean, "title": group,
               "messages": [list(message) for message in messages]},
    )  # fmt: skip


def _put_message(
    board: Board, body: Face, bold: Face, small: Face, who: str, text: str, when: str,
    is_own: bool, is_list: bool, is_dark: bool, at: Px, row: Px,
) -> Px:  # fmt: skip
    """Print one message; returns where the next one starts."""
    ink: Colour = (236, 236, 232) if is_dark else BLACK
    if is_list:
        board.text(bold, who, 14, at + row, ink, most_px=board.width * 0.6)
        board.text(small, when, board.width - 14, at + row, (130, 134, 140), anchor="right")
        board.text(body, text, 14, at + row * 2, ink, most_px=board.width - 28)
        return at + row * 2.6
    lines = wrap(body, text, board.width * 0.62)
    wide = max(*(text_width(body, line) for line in lines), text_width(bold, who) + text_width(small, when) + 16) + 20
    if wide > board.width - 24:
        raise Overfull(text)
    x0 = board.width - 10 - wide if is_own else 10
    tall = row * (len(lines) + 1) + 8
    fill = ((34, 84, 60) if is_dark else (206, 240, 214)) if is_own else ((58, 60, 70) if is_dark else WHITE)
    board.pen.rounded_rectangle(board.flip((x0, at, x0 + wide, at + tall)), 8, fill)
    board.text(bold, who, x0 + 10, at + row * 0.9, ink)
    board.text(small, when, x0 + wide - 10, at + row * 0.9, (140, 144, 150), anchor="right")
    for i, line in enumerate(lines):
        board.text(body, line, x0 + 10, at + row * (1.95 + i), ink)
    return at + tall + 7


def _talk_chat(rng: Random, tongue: Language, group: str, messages: list[tuple[str, str, str]]) -> tuple[Turn, ...]:
    who, text, _ = rng.choice(messages)
    turns = [
        tongue.ask(rng, "screens.who", "who", who, text=text),
        tongue.ask(rng, "screens.last", "last", messages[-1][1]),
        tongue.ask(rng, "screens.messages", "messages", str(len(messages))),
        tongue.ask(rng, "screens.title", "title", group),
    ]
    return tuple(rng.sample(turns, rng.randint(2, 3)))
