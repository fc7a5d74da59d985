"""Shop receipts: sums that add up, dates, shops, and fields that are not there.

Boundary: decides what is printed and where; what is asked is in ``receipt_talk``.
"""

from dataclasses import dataclass
from functools import partial
from random import Random

from handlens.data.generate import fiction
from handlens.data.generate.board import bold_of, upright
from handlens.data.generate.fonts import Font
from handlens.data.generate.ink import Face, face_of, size_for_x_height
from handlens.data.generate.language import Language, language
from handlens.data.generate.page import Colour, Page
from handlens.data.generate.receipt_talk import SHORT, Receipt, talk
from handlens.data.generate.sheet import Row, set_rows, shoot
from handlens.data.generate.words import TEMPLATE, phone, pool, price

MIN_WIDTH, MAX_WIDTH = 224, 340
MIN_HEIGHT, MAX_HEIGHT = 260, 560


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where things stand. ``quantity``: none, left (``2 Tea``) or times (``2x Tea``)."""

    name: str
    is_centred: bool = True
    date_at: str = "top"
    labels_date: bool = False
    rule: str = "dash"
    quantity: str = "none"
    has_columns: bool = False
    price_first: bool = False
    total_first: bool = False
    total_scale: float = 1.0
    is_heldout: bool = False


LAYOUTS = (
    Layout(name="classic"),
    Layout(name="plain", is_centred=False, labels_date=True, rule="solid", total_scale=1.25),
    Layout(name="columns", rule="double", has_columns=True, labels_date=True),
    Layout(name="counted", quantity="left", rule="solid", total_scale=1.15),
    Layout(name="late", date_at="bottom", quantity="times", total_scale=1.3),
    Layout(name="bare", is_centred=False, date_at="bottom", rule="none"),
    Layout(name="front", total_first=True, price_first=True, date_at="bottom", labels_date=True,
           rule="solid", total_scale=1.2, is_heldout=True),
)  # fmt: skip


def draw_receipt(rng: Random, split: str, level: float, tongue: Language | None = None) -> Page:
    """Return one receipt whose total is the true sum."""
    tongue = tongue or language("en")
    layout = rng.choice([one for one in LAYOUTS if one.is_heldout == (split == "heldout")])
    receipt = write_receipt(rng, split, layout, tongue)
    styles = ("mono",) if rng.random() < 0.5 else ("sans", "mono")
    font = rng.choice(upright(tongue.fonts(split, styles)))
    is_lying = rng.random() < 0.5 * level
    margin = rng.randint(6, 14) if is_lying else 0
    rows, width, height, pad = _fit(rng, receipt, layout, font, margin, tongue, split)
    mask, lines = set_rows(rows, width, height, pad, top=rng.uniform(8, 14), is_rtl=tongue.is_rtl)
    colours = _thermal(rng) if rng.random() < 0.8 else None
    picture, lines, clean = shoot(rng, mask, lines, level, colours=colours, margin_px=margin)
    printed = [" ".join(row.texts) for row in rows if row.texts]
    return Page(
        kind="receipts", picture=picture, lines=lines,
        talk=lambda own: talk(own, receipt, printed, split, tongue, is_counted=layout.quantity != "none"),
        facts={
            "shop": receipt.shop, "date": receipt.date, "time": receipt.time,
            "total": receipt.total, "items": [list(item) for item in receipt.items],
            "fields": receipt.fields, "layout": layout.name, "font": font.file, "clean": clean,
        },
    )  # fmt: skip


def write_receipt(rng: Random, split: str, layout: Layout, tongue: Language) -> Receipt:
    """Invent a receipt; tax, tip and discount enter the sum as printed."""
    is_english = tongue.code == "en"
    is_short = rng.random() < 0.15
    sign = _sign(rng) if is_english else tongue.money_way(rng)
    names = (_names if is_english else partial(_names_in, tongue))(rng, split, 2 if is_short else rng.randint(2, 7))
    counts = [rng.choice((1, 1, 1, 2, 3)) if layout.quantity != "none" else 1 for _ in names]
    unit = 1 if tongue.decimals else 100
    cents = [round(float(price(rng, 24.0)) * 100) * count * unit for count in counts]
    extra: dict[str, int] = {}
    chance = 0.12 if is_short else 0.33
    if rng.random() < chance:
        extra["discount"] = -round(sum(cents) * rng.uniform(0.02, 0.2) / unit) * unit
    if rng.random() < chance:
        extra["tax"] = round(sum(cents) * rng.choice((0.05, 0.07, 0.08, 0.19, 0.2)) / unit) * unit
    if rng.random() < chance:
        extra["tip"] = round(sum(cents) * rng.uniform(0.05, 0.2) / unit) * unit
    total = sum(cents) + sum(extra.values())
    fields: dict[str, str] = {}
    if (extra and rng.random() < 0.7) or rng.random() < 0.1:
        fields["subtotal"] = sign(sum(cents))
    fields |= {name: sign(value) for name, value in extra.items()}
    for name, value in (
        ("cashier", tongue.first_upper(rng.choice(tongue.pool("first", split)))),
        ("table number", str(rng.randint(1, 40))),
        ("phone number", phone(rng) if is_english else tongue.phone(rng)),
        ("receipt number", f"{rng.randint(100, 99999):05d}"),
    ):
        if rng.random() < chance * 0.9:
            fields[name] = value
    if rng.random() < 0.3 and not is_short:
        given = (total // (1000 * unit) + 1) * 1000 * unit
        fields |= {"cash": sign(given), "change": sign(given - total)}
    elif rng.random() < 0.5:
        fields["card"] = f"{rng.choice(('VISA', 'DEBIT', 'MASTERCARD'))} *{rng.randint(0, 9999):04d}"
    footers: tuple[str, ...] = ("Thank you!", "THANK YOU", "Come again", "Have a nice day", "Please keep this receipt")
    if not is_english:
        footers = (tongue.first_upper(tongue.word("thank you")), tongue.first_upper(tongue.word("welcome")))
    return Receipt(
        shop=_shop(rng, split) if is_english else fiction.company(rng, tongue, split),
        address=_address(rng, split) if is_english else fiction.address(rng, tongue, split),
        date=tongue.date(rng), time=tongue.time(rng),
        items=tuple((name, sign(value)) for name, value in zip(names, cents, strict=True)),
        counts=tuple(counts), total=sign(total), fields=fields,
        footer=rng.choice(footers) if rng.random() < 0.6 and not is_short else "",
    )  # fmt: skip


class _Sign:
    """Prints cents the way one shop does, sign always attached."""

    def __init__(self, before: str, after: str, comma: bool) -> None:
        self.before, self.after, self.comma = before, after, comma

    def __call__(self, cents: int) -> str:
        text = f"{abs(cents) // 100}.{abs(cents) % 100:02d}"
        text = text.replace(".", ",") if self.comma else text
        return f"{'-' if cents < 0 else ''}{self.before}{text}{self.after}"


def _sign(rng: Random) -> _Sign:
    before, after = rng.choice((("", ""), ("", ""), ("$", ""), ("$", ""), ("€", ""), ("£", ""), ("", "€")))
    return _Sign(before, after, comma=(after == "€" or before == "") and rng.random() < 0.3)


def _names(rng: Random, split: str, count: int) -> list[str]:
    """Return different item names of one or two words, all cased alike."""
    words = pool("food", split) + (pool("product", split) if rng.random() < 0.4 else ())
    words = tuple(word for word in words if word not in TEMPLATE)  # "Table 4" is no item
    names: list[str] = []
    upper = rng.random() < 0.35
    while len(names) < count:
        name = rng.choice(words)
        if rng.random() < 0.25:
            second = rng.choice(pool("food", split))
            name = f"{name} {second}" if second != name and len(name + second) < 14 else name
        name = name.upper() if upper else name.title()
        if all(name.casefold() not in n.casefold() and n.casefold() not in name.casefold() for n in names):
            names.append(name)
    return names


def _names_in(tongue: Language, rng: Random, split: str, count: int) -> list[str]:
    """Return different item names in a language; none is part of another."""
    words = tongue.pool("food", split) + (tongue.pool("thing", split) if rng.random() < 0.4 else ())
    case = tongue.upper if rng.random() < 0.35 else tongue.first_upper
    names: list[str] = []
    for word in rng.sample(words, len(words)):
        name = case(word)
        if len(names) < count and len(word) <= 16 and all(name not in n and n not in name for n in names):
            names.append(name)
    return names


def _shop(rng: Random, split: str) -> str:
    first = rng.choice(pool(rng.choice(("place", "person", "shop")), split))
    name = f"{first} {rng.choice(pool('shop', split))}".title()
    return name.upper() if rng.random() < 0.4 else name


def _address(rng: Random, split: str) -> str:
    ending = rng.choice(("Street", "St.", "Road", "Ave", "Lane"))
    return f"{rng.randint(1, 250)} {rng.choice(pool('place', split)).title()} {ending}"


_LABEL = {
    "subtotal": ("Subtotal", "SUBTOTAL", "Sub total"), "discount": ("Discount", "DISCOUNT"),
    "tax": ("Tax", "TAX"), "tip": ("Tip", "TIP"), "cashier": ("Cashier:", "Cashier", "CASHIER"),
    "table number": ("Table", "Table:", "TABLE"), "phone number": ("Tel.", "Phone:", "TEL"),
    "receipt number": ("Receipt no.", "Receipt #", "RECEIPT NO"), "cash": ("Cash", "CASH"),
    "change": ("Change", "CHANGE"), "card": ("Card", "CARD"),
    "total": ("TOTAL", "Total", "TOTAL", "Total due", "AMOUNT DUE"),
}  # fmt: skip


def _label(rng: Random, tongue: Language, key: str) -> str:
    """Return how a receipt names a field."""
    if tongue.code == "en":
        return rng.choice(_LABEL[key])
    name = tongue.word(SHORT.get(key, key))
    return rng.choice((tongue.first_upper(name), tongue.upper(name), f"{tongue.first_upper(name)}:"))


def _rows(
    rng: Random, receipt: Receipt, layout: Layout, face: Face, big: Face, strong: Face, gap: float, tongue: Language
) -> list[Row]:
    """Return all rows in printing order."""

    def line(left: str = "", right: str = "", middle: str = "", in_face: Face = face) -> Row:
        return Row(face=in_face, left=left, right=right, middle=middle, gap=gap)

    def head(text: str, in_face: Face = face) -> Row:
        return line(middle=text, in_face=in_face) if layout.is_centred else line(text, in_face=in_face)

    def named(name: str) -> Row:
        return line(_label(rng, tongue, name), receipt.fields[name])

    rule = Row(face=face, rule=layout.rule, gap=gap)
    total = line(_label(rng, tongue, "total"), receipt.total, in_face=strong)
    when = [line(f"{_plain(tongue, key)}:", value) for key, value in (("date", receipt.date), ("time", receipt.time))]
    when = when if layout.labels_date else [
        line(receipt.date, receipt.time)]  # fmt: skip
    rows = [head(receipt.shop, big), head(receipt.address)]
    rows += [named(name) for name in ("phone number",) if name in receipt.fields]
    rows += when if layout.date_at == "top" else []
    rows += [named(name) for name in ("receipt number", "cashier", "table number") if name in receipt.fields]
    rows += [rule, total, rule] if layout.total_first else [rule]
    rows += [line(_plain(tongue, "item"), _plain(tongue, "price"))] if layout.has_columns else []
    for (name, amount), count in zip(receipt.items, receipt.counts, strict=True):
        mark = {"none": "", "left": f"{count} ", "times": f"{count}x "}[layout.quantity]
        rows.append(line(amount, name) if layout.price_first else line(mark + name, amount))
    rows.append(rule)
    sums = ("subtotal", "discount", "tax", "tip")
    rows += [named(name) for name in sums if name in receipt.fields]
    rows += [] if layout.total_first else [total]
    rows += [named(name) for name in ("cash", "change", "card") if name in receipt.fields]
    rows += [rule, *when] if layout.date_at == "bottom" else []
    rows += [head(receipt.footer)] if receipt.footer else []
    return rows


def _plain(tongue: Language, key: str) -> str:
    return tongue.first_upper(tongue.word(key))


def _fit(
    rng: Random, receipt: Receipt, layout: Layout, font: Font, margin: int, tongue: Language, split: str
) -> tuple[list[Row], int, int, float]:
    """Pick the largest size, up to a drawn one, at which all rows fit the paper."""
    size = size_for_x_height(font, rng.uniform(8.0, 10.5))
    pad, gap = rng.uniform(8, 16), rng.uniform(1.12, 1.4)
    most_w, most_h = MAX_WIDTH - 2 * margin, MAX_HEIGHT - 2 * margin
    scale, state = rng.choice((1.0, 1.25, 1.5)), rng.getstate()
    bold = bold_of(font, tongue.fonts(split)) if rng.random() < 0.4 else font
    while True:
        rng.setstate(state)  # the same labels at every size
        big, strong = face_of(bold, round(size * scale)), face_of(bold, round(size * layout.total_scale))
        rows = _rows(rng, receipt, layout, face_of(font, size), big, strong, gap, tongue)
        width = max(row.width_px() for row in rows) + 2 * pad
        height = sum(row.height_px for row in rows) + 26
        if (width <= most_w and height <= most_h) or size <= 9:
            break
        if width > most_w and scale > 1 and big.size_px > size:
            scale = max(1.0, scale - 0.25)
        elif height > most_h and width <= most_w and gap > 1.08:
            gap -= 0.06
        else:
            size -= 1
    wide = max(width + rng.uniform(0, 40), MIN_WIDTH - 2 * margin)
    tall = max(height + rng.uniform(0, 20), MIN_HEIGHT - 2 * margin)
    return rows, round(min(wide, most_w)), round(min(tall, most_h)), pad


def _thermal(rng: Random) -> tuple[Colour, Colour]:
    ink, paper = rng.randint(10, 90), rng.randint(225, 255)
    return (ink, ink, ink + rng.randint(0, 25)), (paper, paper, max(0, paper - rng.randint(0, 14)))
