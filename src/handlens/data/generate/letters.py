"""Letters: a sender, a recipient, a date, a subject and a few sentences.

Boundary: draws one page and asks about it; canvas and camera are in ``board``.
"""

from random import Random

from handlens.data.generate.board import Board, accent, faces, tint, wrap
from handlens.data.generate.fiction import account, address, company, person, word
from handlens.data.generate.language import Language, language
from handlens.data.generate.page import Page, Px
from handlens.data.records import Turn

LAYOUTS = ("block", "right", "band")
HELDOUT_LAYOUTS = ("foot",)


def draw_letter(rng: Random, split: str, level: float, tongue: Language | None = None) -> Page:
    """Return a letter; in the held-out layout sender and date stand at its foot."""
    tongue = tongue or language("en")
    layout = rng.choice(HELDOUT_LAYOUTS if split == "heldout" else LAYOUTS)
    firm, street, name = company(rng, tongue, split), address(rng, tongue, split), person(rng, tongue, split)
    city, date = word(rng, tongue, split, "city"), tongue.date(rng)
    subject = f"{tongue.first_upper(tongue.word(rng.choice(('invoice', 'order', 'room', 'receipt'))))} {account(rng)}"
    values = {"name": name, "date": tongue.date(rng), "total": tongue.money(rng), "number": account(rng)}
    texts: list[str] = []
    for _ in range(20):
        if len(texts) == 4:
            break
        text = tongue.sentence(rng, split, "letter", **values)
        if text not in texts:
            texts.append(text)
    texts = texts[: rng.randint(2, 4)]
    bank = tongue.facts.get("letter")
    greeting = bank[0].format(**values) if bank else name
    closing = bank[1] if bank else tongue.first_upper(tongue.word("thank you"))
    body, bold, title = faces(rng, tongue, split, rng.randint(11, 14))
    board = Board(rng.randint(330, 430), 640, tint(rng, 240, 255, 6), is_rtl=tongue.is_rtl)
    row, x, end = body.height * rng.uniform(1.2, 1.4), 22, board.width - 22
    room = end - x
    at: Px = 16 + title.ascent
    fields = {"sender": firm, "recipient": name, "date": date, "subject": subject}
    if layout == "band":
        board.box((0, 0, board.width, title.height + 22), accent(rng))
        board.text(title, firm, x, at, (255, 255, 255), most_px=room)
        at += row + 14
    elif layout != "foot":
        board.text(
            bold,
            firm,
            end if layout == "right" else x,
            at,
            anchor="right" if layout == "right" else "left",
            most_px=room,
        )
        at += row
        board.text(
            body,
            street,
            end if layout == "right" else x,
            at,
            anchor="right" if layout == "right" else "left",
            most_px=room,
        )
        at += row
    for text in (name, city):
        board.text(body, text, x, at, most_px=room)
        at += row
    if layout != "foot":
        board.text(body, date, end, at + row * 0.4, anchor="right", most_px=room)
        at += row * 1.5
    at += row * 0.3
    board.text(bold, subject, x, at, most_px=room)
    at += row * 1.5
    if greeting != name:
        board.text(body, greeting, x, at, most_px=room)
        at += row
    for text in texts:
        for line in wrap(body, text, room):
            board.text(body, line, x, at, most_px=room)
            at += row
    at += row * 0.5
    board.text(body, closing, x, at, most_px=room)
    at += row
    if layout == "foot":
        board.rule(x, at - row * 0.4, end, (140, 140, 146))
        for text in (firm, street, date):
            board.text(body, text, x, at + row * 0.5, most_px=room)
            at += row
    board.trim(at + rng.randint(8, 30))
    shot = board.shoot(rng, level, margin_px=rng.randint(6, 14) if rng.random() < 0.3 * level else 0)
    lines = [line.text for line in shot.lines]
    return Page(
        kind="letters", picture=shot.picture, lines=shot.lines, talk=lambda own: _talk(own, tongue, fields, lines),
        facts={
            "layout": layout, "font": body.font.file, "clean": shot.clean, "fields": fields, "sentences": texts,
            "address": street, "city": city,
        },
    )  # fmt: skip


def _talk(rng: Random, tongue: Language, fields: dict[str, str], lines: list[str]) -> tuple[Turn, ...]:
    """Return two to four turns; a short letter may be read whole."""
    absent = ("phone", "email", "tax", "tip", "weight")
    turns = [tongue.ask(rng, "letters.field", "field", fields[key], name=tongue.word(key)) for key in
             rng.sample(("sender", "recipient", "subject"), 2)]  # fmt: skip
    turns.append(tongue.ask(rng, "letters.date", "field", fields["date"], name=tongue.word("date")))
    number = rng.randrange(len(lines))
    turns.append(tongue.ask(rng, "letters.line", "line", lines[number], n=str(number + 1)))
    turns.append(tongue.ask(rng, "letters.missing", "field", tongue.not_present, name=tongue.word(rng.choice(absent))))
    if sum(map(len, lines)) < 260:
        turns.append(tongue.ask(rng, "letters.read", "read", "\n".join(lines)))
    return tuple(rng.sample(turns, rng.randint(2, 4)))
