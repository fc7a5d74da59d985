"""Shop receipts: sums that add up, dates, shops, and fields that are not there.

Boundary: decides what is printed and where; what is asked is in ``receipt_talk``.
"""

from dataclasses import dataclass, field
from random import Random

from handlens.data.generate.fonts import Font, fonts_of
from handlens.data.generate.ink import Face, face_of, size_for_x_height
from handlens.data.generate.page import Colour, Page
from handlens.data.generate.receipt_talk import talk
from handlens.data.generate.sheet import Row, set_rows, shoot
from handlens.data.generate.words import TEMPLATE, date, phone, pool, price, time

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


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What the paper says, each value exactly as printed."""

    shop: str
    address: str
    date: str
    time: str
    items: tuple[tuple[str, str], ...]
    counts: tuple[int, ...]
    total: str
    fields: dict[str, str] = field(default_factory=dict)
    """Optional fields by their plain name (tip, tax ...), in printing order."""
    footer: str = ""


def draw_receipt(rng: Random, split: str, level: float) -> Page:
    """Return one receipt whose total is the true sum."""
    layout = rng.choice([one for one in LAYOUTS if one.is_heldout == (split == "heldout")])
    receipt = write_receipt(rng, split, layout)
    styles = ("mono",) if rng.random() < 0.5 else ("sans", "mono")
    font = rng.choice(_upright(fonts_of(split, styles)))
    is_lying = rng.random() < 0.5 * level
    margin = rng.randint(6, 14) if is_lying else 0
    rows, width, height, pad = _fit(rng, receipt, layout, font, margin)
    mask, lines = set_rows(rows, width, height, pad, top=rng.uniform(8, 14))
    colours = _thermal(rng) if rng.random() < 0.8 else None
    picture, lines, clean = shoot(rng, mask, lines, level, colours=colours, margin_px=margin)
    printed = [" ".join(row.texts) for row in rows if row.texts]
    return Page(
        kind="receipts", picture=picture, lines=lines,
        turns=talk(rng, receipt, printed, split, is_counted=layout.quantity != "none"),
        facts={
            "shop": receipt.shop, "date": receipt.date, "time": receipt.time,
            "total": receipt.total, "items": [list(item) for item in receipt.items],
            "fields": receipt.fields, "layout": layout.name, "font": font.file, "clean": clean,
        },
    )  # fmt: skip


def write_receipt(rng: Random, split: str, layout: Layout) -> Receipt:
    """Invent a receipt; tax, tip and discount enter the sum as printed."""
    is_short = rng.random() < 0.15
    sign = _sign(rng)
    names = _names(rng, split, 2 if is_short else rng.randint(2, 7))
    counts = [rng.choice((1, 1, 1, 2, 3)) if layout.quantity != "none" else 1 for _ in names]
    cents = [round(float(price(rng, 24.0)) * 100) * count for count in counts]
    extra: dict[str, int] = {}
    chance = 0.12 if is_short else 0.33
    if rng.random() < chance:
        extra["discount"] = -round(sum(cents) * rng.uniform(0.02, 0.2))
    if rng.random() < chance:
        extra["tax"] = round(sum(cents) * rng.choice((0.05, 0.07, 0.08, 0.19, 0.2)))
    if rng.random() < chance:
        extra["tip"] = round(sum(cents) * rng.uniform(0.05, 0.2))
    total = sum(cents) + sum(extra.values())
    fields: dict[str, str] = {}
    if (extra and rng.random() < 0.7) or rng.random() < 0.1:
        fields["subtotal"] = sign(sum(cents))
    fields |= {name: sign(value) for name, value in extra.items()}
    for name, value in (
        ("cashier", rng.choice(pool("person", split)).title()),
        ("table number", str(rng.randint(1, 40))),
        ("phone number", phone(rng)),
        ("receipt number", f"{rng.randint(100, 99999):05d}"),
    ):
        if rng.random() < chance * 0.9:
            fields[name] = value
    if rng.random() < 0.3 and not is_short:
        given = (total // 1000 + 1) * 1000
        fields |= {"cash": sign(given), "change": sign(given - total)}
    elif rng.random() < 0.5:
        fields["card"] = f"{rng.choice(('VISA', 'DEBIT', 'MASTERCARD'))} *{rng.randint(0, 9999):04d}"
    footers = ("Thank you!", "THANK YOU", "Come again", "Have a nice day", "Please keep this receipt")
    return Receipt(
        shop=_shop(rng, split), address=_address(rng, split), date=date(rng), time=time(rng),
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
}  # fmt: skip


def _rows(rng: Random, receipt: Receipt, layout: Layout, face: Face, big: Face, strong: Face, gap: float) -> list[Row]:
    """Return all rows in printing order."""

    def line(left: str = "", right: str = "", middle: str = "", in_face: Face = face) -> Row:
        return Row(face=in_face, left=left, right=right, middle=middle, gap=gap)

    def head(text: str, in_face: Face = face) -> Row:
        return line(middle=text, in_face=in_face) if layout.is_centred else line(text, in_face=in_face)

    def named(name: str) -> Row:
        return line(rng.choice(_LABEL[name]), receipt.fields[name])

    rule = Row(face=face, rule=layout.rule, gap=gap)
    total = line(rng.choice(("TOTAL", "Total", "TOTAL", "Total due", "AMOUNT DUE")), receipt.total, in_face=strong)
    when = [line("Date:", receipt.date), line("Time:", receipt.time)] if layout.labels_date else [
        line(receipt.date, receipt.time)]  # fmt: skip
    rows = [head(receipt.shop, big), head(receipt.address)]
    rows += [named(name) for name in ("phone number",) if name in receipt.fields]
    rows += when if layout.date_at == "top" else []
    rows += [named(name) for name in ("receipt number", "cashier", "table number") if name in receipt.fields]
    rows += [rule, total, rule] if layout.total_first else [rule]
    rows += [line("Item", "Price")] if layout.has_columns else []
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


def _fit(rng: Random, receipt: Receipt, layout: Layout, font: Font, margin: int) -> tuple[list[Row], int, int, float]:
    """Pick the largest size, up to a drawn one, at which all rows fit the paper."""
    size = size_for_x_height(font, rng.uniform(8.0, 10.5))
    pad, gap = rng.uniform(8, 16), rng.uniform(1.12, 1.4)
    most_w, most_h = MAX_WIDTH - 2 * margin, MAX_HEIGHT - 2 * margin
    scale, state = rng.choice((1.0, 1.25, 1.5)), rng.getstate()
    bold = _bolder(font) if rng.random() < 0.4 else font
    while True:
        rng.setstate(state)  # the same labels at every size
        big, strong = face_of(bold, round(size * scale)), face_of(bold, round(size * layout.total_scale))
        rows = _rows(rng, receipt, layout, face_of(font, size), big, strong, gap)
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


def _upright(fonts: tuple[Font, ...]) -> list[Font]:
    slanted = ("It.", "Italic", "Oblique", "Ita.")
    return [font for font in fonts if not any(mark in font.file for mark in slanted)]


def _bolder(font: Font) -> Font:
    from handlens.data.generate.fonts import FONTS

    bold = [f for f in FONTS if f.family == font.family and "Bold." in f.file]
    return bold[0] if bold else font


def _thermal(rng: Random) -> tuple[Colour, Colour]:
    ink, paper = rng.randint(10, 90), rng.randint(225, 255)
    return (ink, ink, ink + rng.randint(0, 25)), (paper, paper, max(0, paper - rng.randint(0, 14)))
