"""What a receipt says, and questions about it; every answer is copied from the paper or is ``not present``.

Boundary: sees what the receipt says, never where it stands.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from handlens.data.generate.page import ask
from handlens.data.generate.words import pool
from handlens.data.records import Turn

if TYPE_CHECKING:
    from handlens.data.generate.language import Language

NOT_PRESENT = "not present"
"""The answer to a question about something that the picture does not show."""

_TOTAL = (
    "What is the total?", "How much is the total?", "What is the total amount?",
    "Read the total.", "How much was paid in total?", "What does it cost in total?",
)  # fmt: skip
_DATE = (
    "What is the date?", "What is the date on the receipt?", "When was this bought?",
    "Read the date.", "On which day was the purchase?", "Which date is printed?",
)  # fmt: skip
_TIME = (
    "What time is printed?", "What is the time?", "Read the time.", "At what time was this bought?",
    "Which time is on the receipt?",
)  # fmt: skip
_SHOP = (
    "What is the name of the shop?", "Which shop is it?", "What is the shop's name?",
    "Where was this bought?", "Read the name of the store.", "Which store is this from?",
)  # fmt: skip
_ITEM = (
    "How much is the {name}?", "What does the {name} cost?", "What is the price of {name}?",
    "How much was paid for {name}?", "Read the price of {name}.", "What is printed beside {name}?",
)  # fmt: skip
_COUNT = (
    "How many items are on the receipt?", "How many items are there?", "Count the items.",
    "How many items were bought?", "What is the number of items?", "How many things were bought?",
)  # fmt: skip
_FIELD = (
    "What is the {name}?", "Read the {name}.", "What {name} is printed?",
    "Which {name} is on the receipt?", "Find the {name}.", "Tell me the {name}.",
)  # fmt: skip
_READ = (
    "Read the receipt.", "Transcribe the receipt.", "What does the receipt say?",
    "Write down the whole receipt.", "Read all the text.", "Transcribe this.",
)  # fmt: skip
FIELDS = (
    "tip", "discount", "tax", "subtotal", "cashier", "table number", "phone number", "receipt number",
    "change",
)  # fmt: skip


SHORT = {"table number": "table", "phone number": "phone", "receipt number": "receipt"}
"""Words of the language files for fields that English names with two."""


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


def talk(
    rng: Random, receipt: Receipt, printed: list[str], split: str, tongue: Language, *, is_counted: bool
) -> tuple[Turn, ...]:
    """Return two to five turns of different tasks, the main fields most often."""
    if tongue.code != "en":
        return _talk_in(tongue, rng, receipt, printed, is_counted=is_counted)
    ways = {"total": 4, "date": 2.5, "shop": 2.5, "item": 4, "time": 1, "missing": 2, "field": 2}
    if not is_counted:
        ways["count"] = 1.5
    if len(printed) <= 9:
        ways["read"] = 5
    wanted = rng.randint(2, 5)
    turns: list[Turn] = []
    while ways and len(turns) < wanted:
        way = rng.choices(tuple(ways), tuple(ways.values()))[0]
        del ways[way]
        turn = _turn(rng, way, receipt, printed, split)
        turns += [turn] if turn else []
    return tuple(turns)


def _turn(rng: Random, way: str, receipt: Receipt, printed: list[str], split: str) -> Turn | None:
    if way == "total":
        return ask(rng, "receipts.total", _TOTAL, receipt.total)
    if way == "date":
        return ask(rng, "receipts.date", _DATE, receipt.date)
    if way == "time":
        return ask(rng, "receipts.field", _TIME, receipt.time)
    if way == "shop":
        return ask(rng, "receipts.shop", _SHOP, receipt.shop)
    if way == "item":
        name, amount = rng.choice(receipt.items)
        return ask(rng, "receipts.item", _ITEM, amount, name=name)
    if way == "count":
        return ask(rng, "receipts.count", _COUNT, str(len(receipt.items)))
    if way == "read":
        return ask(rng, "receipts.read", _READ, "\n".join(printed))
    if way == "field":
        there = [name for name in FIELDS if name in receipt.fields]
        if not there:
            return None
        name = rng.choice(there)
        return ask(rng, "receipts.field", _FIELD, receipt.fields[name], name=name)
    return _missing(rng, receipt, split)


def _missing(rng: Random, receipt: Receipt, split: str) -> Turn:
    """Ask for a field or an item that is not on the paper, in the words used for those that are."""
    absent = [name for name in FIELDS if name not in receipt.fields]
    if rng.random() < 0.35 or not absent:
        said = " ".join(name for name, _ in receipt.items).casefold()
        names = [word.title() for word in pool("food", split) if word not in said]
        return ask(rng, "receipts.missing", _ITEM, NOT_PRESENT, name=rng.choice(names))
    return ask(rng, "receipts.missing", _FIELD, NOT_PRESENT, name=rng.choice(absent))


def _talk_in(
    tongue: Language, rng: Random, receipt: Receipt, printed: list[str], *, is_counted: bool
) -> tuple[Turn, ...]:
    """Return two to five turns in a language."""
    there = [key for key in FIELDS if key in receipt.fields]
    absent = [key for key in FIELDS if key not in receipt.fields]
    item, amount = rng.choice(receipt.items)
    turns = [
        tongue.ask(rng, "receipts.total", "total", receipt.total),
        tongue.ask(rng, "receipts.date", "date", receipt.date),
        tongue.ask(rng, "receipts.shop", "shop", receipt.shop),
        tongue.ask(rng, "receipts.item", "price", amount, name=item),
    ]
    if absent:
        key = rng.choice(absent)
        turns.append(tongue.ask(rng, "receipts.missing", "field", tongue.not_present, name=_said(tongue, key)))
    if there:
        key = rng.choice(there)
        turns.append(tongue.ask(rng, "receipts.field", "field", receipt.fields[key], name=_said(tongue, key)))
    if not is_counted:
        turns.append(tongue.ask(rng, "receipts.count", "items", str(len(receipt.items))))
    if len(printed) <= 9:
        turns.append(tongue.ask(rng, "receipts.read", "read", "\n".join(printed)))
    return tuple(rng.sample(turns, rng.randint(2, 5)))


def _said(tongue: Language, key: str) -> str:
    return tongue.word(SHORT.get(key, key))
