"""Invoices: a firm, a customer, items with quantities, sums that add up, a date to pay by.

Boundary: draws one page and asks about it; canvas and camera are in ``board``.
"""

from dataclasses import dataclass
from random import Random

from handlens.data.generate.board import BLACK, WHITE, Board, accent, faces, tint
from handlens.data.generate.fiction import account, address, company, person
from handlens.data.generate.ink import Face
from handlens.data.generate.language import Language, language
from handlens.data.generate.markup import to_html, to_markdown
from handlens.data.generate.page import Colour, Page, Px
from handlens.data.records import Turn

LAYOUTS = ("classic", "striped", "boxed")
HELDOUT_LAYOUTS = ("sidebar",)
_OPTIONAL = ("order", "phone", "due date", "customer", "address")


@dataclass(frozen=True, kw_only=True)
class Invoice:
    """What the page says, each value exactly as printed."""

    firm: str
    title: str
    fields: dict[str, str]
    """Values by the language's plain name of the field, in printing order."""
    table: tuple[tuple[str, ...], ...]
    sums: dict[str, str]
    total: str


def draw_invoice(rng: Random, split: str, level: float, tongue: Language | None = None) -> Page:
    """Return one invoice whose total is the true sum."""
    tongue = tongue or language("en")
    layout = rng.choice(HELDOUT_LAYOUTS if split == "heldout" else LAYOUTS)
    invoice = write_invoice(rng, split, tongue)
    width = rng.randint(340, 440)
    body, bold, title = faces(rng, tongue, split, rng.randint(11, 14))
    row = round(body.height * rng.uniform(1.25, 1.5))
    # firm, title, address, all fields, table, sums and room around them
    height = title.height * 2 + row * (len(invoice.fields) + len(invoice.table) + len(invoice.sums) + 4) + 40
    board = Board(width, min(640, height), tint(rng, 240, 255, 6), is_rtl=tongue.is_rtl)
    colour = accent(rng)
    x, at = 14, 14.0 + title.ascent
    if layout == "sidebar":
        board.box((0, 0, 10, board.height), colour)
        x = 24
    board.text(title, invoice.firm, x, at, colour if layout != "striped" else BLACK, most_px=width * 0.62 - x)
    board.text(bold, invoice.title, width - 14, at, anchor="right", most_px=width * 0.3)
    at += row + 4
    at = _fields(board, invoice, layout, body, x, at, row)
    at = _items(rng, board, invoice, layout, body, bold, x, at + 4, row, colour)
    at = _sums(board, invoice, tongue, body, bold, at + 6, row, colour)
    board.trim(at + body.descent + rng.randint(12, 30))
    shot = board.shoot(rng, level, margin_px=rng.randint(6, 14) if rng.random() < 0.3 * level else 0)
    return Page(
        kind="invoices", picture=shot.picture, lines=shot.lines, table=invoice.table,
        talk=lambda own: _talk(own, invoice, tongue),
        facts={
            "layout": layout, "font": body.font.file, "clean": shot.clean, "shop": invoice.firm,
            "fields": invoice.fields | invoice.sums, "total": invoice.total,
            "items": [list(line) for line in invoice.table[1:]],
            "markdown": to_markdown(invoice.table), "html": to_html(invoice.table),
        },
    )  # fmt: skip


def write_invoice(rng: Random, split: str, tongue: Language) -> Invoice:
    """Invent an invoice; tax and discount enter the sum as printed."""
    show, day = tongue.money_way(rng), tongue.date_way(rng)
    step = 100 if tongue.decimals == 0 else 1
    year, month = rng.randint(2015, 2034), rng.randint(1, 11)
    fields = {"number": account(rng), "date": day(year, month, rng.randint(1, 28))}
    for key in _OPTIONAL:
        if rng.random() < 0.5:
            fields[key] = {
                "order": lambda: account(rng), "phone": lambda: tongue.phone(rng),
                "due date": lambda: day(year, month + 1, rng.randint(1, 28)),
                "customer": lambda: person(rng, tongue, split), "address": lambda: address(rng, tongue, split),
            }[key]()  # fmt: skip
    pool = tongue.pool("food", split) + tongue.pool("product", split)
    names = rng.sample([w for w in pool if len(w) <= 14], min(rng.randint(2, 5), len(pool)))
    header = tuple(tongue.first_upper(tongue.word(key)) for key in ("item", "quantity", "price", "total"))
    rows, net = [header], 0
    for name in names:
        count, cents = rng.randint(1, 12), rng.randint(20, 9900) * step
        rows.append((tongue.first_upper(name), str(count), show(cents), show(cents * count)))
        net += cents * count
    sums: dict[str, str] = {}
    extra: dict[str, int] = {}
    if rng.random() < 0.4:
        extra["discount"] = -round(net * rng.choice((0.02, 0.05, 0.1)) / step) * step
    if rng.random() < 0.6:
        extra["tax"] = round(net * rng.choice((0.05, 0.07, 0.19, 0.2, 0.21)) / step) * step
    if extra:
        sums["subtotal"] = show(net)
    sums |= {key: show(value) for key, value in extra.items()}
    total = show(net + sum(extra.values()))
    names_of = {tongue.word(key): value for key, value in fields.items()}
    return Invoice(
        firm=company(rng, tongue, split), title=tongue.first_upper(tongue.word("invoice")), fields=names_of,
        table=tuple(rows), sums={tongue.word(key): value for key, value in sums.items()}, total=total,
    )  # fmt: skip


def _fields(board: Board, invoice: Invoice, layout: str, face: Face, x: int, at: Px, row: int) -> Px:
    """Print name and value of every field; returns the next baseline."""
    start = at
    for name, value in invoice.fields.items():
        label = f"{name[:1].upper()}{name[1:]}:"
        if layout == "classic" or layout == "sidebar":
            board.text(face, f"{label} {value}", x, at, most_px=board.width - x - 14)
        else:
            board.text(face, label, x, at, (90, 90, 96), most_px=board.width * 0.4)
            board.text(face, value, board.width * 0.46, at, most_px=board.width * 0.5)
        at += row
    if layout == "boxed":
        board.box((x - 5, start - row * 0.95, board.width - 9, at - row * 0.55), edge=(120, 120, 126))
        at += 4
    return at


def _items(
    rng: Random, board: Board, invoice: Invoice, layout: str, body: Face, bold: Face,
    x: int, at: Px, row: int, colour: Colour,
) -> Px:  # fmt: skip
    """Print the table of items; returns the next baseline."""
    inner = board.width - 14 - x
    ends = [x + inner * share for share in (0.42, 0.59, 0.79, 1.0)]
    for i, cells in enumerate(invoice.table):
        band = (x - 4, at - row * 0.76, board.width - 10, at + row * 0.24)
        if i == 0 and layout != "classic":
            board.box(band, colour)
        elif i and i % 2 == 0 and layout == "striped":
            board.box(band, (228, 232, 238))
        ink = WHITE if i == 0 and layout != "classic" else BLACK
        face = bold if i == 0 else body
        board.text(face, cells[0], x, at, ink, most_px=inner * 0.36)
        for cell, end, share in zip(cells[1:], ends[1:], (0.16, 0.185, 0.2), strict=True):
            board.text(face, cell, end, at, ink, anchor="right", most_px=inner * share)
        if layout == "classic":
            board.rule(x, at + row * 0.24, board.width - 14, (150, 150, 156))
        at += row
    return at


def _sums(
    board: Board, invoice: Invoice, tongue: Language, body: Face, bold: Face, at: Px, row: int, colour: Colour
) -> Px:
    middle, end = board.width * 0.46, board.width - 14
    for name, value in invoice.sums.items():
        board.text(body, tongue.first_upper(name), middle, at, most_px=board.width * 0.24)
        board.text(body, value, end, at, anchor="right", most_px=board.width * 0.25)
        at += row
    board.rule(middle, at - row * 0.74, end, colour, 2)
    board.text(bold, tongue.upper(tongue.word("total")), middle, at + 3, most_px=board.width * 0.24)
    board.text(bold, invoice.total, end, at + 3, anchor="right", most_px=board.width * 0.25)
    return at + 3


def _talk(rng: Random, invoice: Invoice, tongue: Language) -> tuple[Turn, ...]:
    """Return two to four turns, the main fields most often."""
    fields = invoice.fields | invoice.sums
    absent = [tongue.word(key) for key in (*_OPTIONAL, "tax", "discount", "room") if tongue.word(key) not in fields]
    row = rng.choice(invoice.table[1:])
    name, value = rng.choice(list(fields.items()))
    is_there = rng.random() < 0.5
    asked = name if is_there else rng.choice(absent)
    turns = [
        tongue.ask(rng, "invoices.total", "total", invoice.total),
        tongue.ask(rng, "invoices.shop", "shop", invoice.firm),
        tongue.ask(rng, "invoices.field", "field", value, name=name),
        tongue.ask(rng, "invoices.missing", "field", tongue.not_present, name=rng.choice(absent)),
        tongue.ask(rng, "invoices.has", "has", tongue.yes(is_there), name=asked),
        tongue.ask(rng, "invoices.price", "price", row[2], name=row[0]),
        tongue.ask(rng, "invoices.cell", "cell", row[1], row=row[0], column=invoice.table[0][1]),
        tongue.ask(rng, "invoices.items", "items", str(len(invoice.table) - 1)),
        tongue.ask(rng, "invoices.markdown", "markdown", to_markdown(invoice.table)),
    ]
    return tuple(rng.sample(turns, rng.randint(2, 4)))
