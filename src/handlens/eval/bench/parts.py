"""What Handlens-Bench asks: a new kind of question is one row here.

Boundary: a table. ``freeze`` draws it from the generators of training data, with the words, fonts and layouts that
training never shows, and with seeds of its own.
"""

from dataclasses import dataclass

SEED = 7_700_001
"""No training run uses it."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Questions of one sort, which count as one share of the score together."""

    name: str
    group: str
    """What the part belongs to in the report: reading, fields, tables and so on."""
    rule: str
    """How an answer is marked: text, short, yes_no, number, markdown or refusal; see ``rules``."""
    ask: str
    """``kind/task`` with commas between them: whose pictures, and which of the questions about them."""
    count: int
    languages: tuple[str, ...] = ("en",)
    level: float = 0.4
    """Damage of the pictures: 0 clean, 1 a careless photo."""
    line_px: int = 0
    """Height of a printed line after resizing; 0 leaves the picture as it was drawn."""
    aspect: float = 0.0
    """Width over height of the page that the picture is laid on; 0 leaves it alone."""
    longest: int = 120
    """Characters of the longest true answer."""


SCRIPTS = ("de", "fr", "es", "pl", "tr", "vi", "ru", "uk", "el", "ar", "he", "hi", "th", "zh", "ja", "ko")
FOLLOWED = ("de", "fr", "es", "it", "pt", "ru", "zh", "ja")
_FIELDS = (
    "receipts/receipts.total,receipts/receipts.date,receipts/receipts.item,labels/labels.field,invoices/invoices.field,"
    "invoices/invoices.price,forms/forms.field,cards/cards.field"
)
_MISSING = (
    "receipts/receipts.missing,labels/labels.missing,forms/forms.missing,tables/tables.missing,cards/cards.missing"
)

PARTS = (
    Part(name="read-tiny", group="reading", rule="text", ask="lines/lines.read", count=20, line_px=11),
    Part(name="read-small", group="reading", rule="text", ask="lines/lines.read", count=20, line_px=16),
    Part(name="read-medium", group="reading", rule="text", ask="lines/lines.read", count=20, line_px=24),
    Part(name="read-large", group="reading", rule="text", ask="lines/lines.read", count=20, line_px=44),
    Part(name="read-scripts", group="reading", rule="text", ask="lines/lines.read", count=32, languages=SCRIPTS,
         level=0.1),
    Part(name="fields", group="fields", rule="short", ask=_FIELDS, count=40),
    Part(name="table-cell", group="tables", rule="short", ask="tables/tables.cell,invoices/invoices.cell", count=20),
    Part(name="table-markdown", group="tables", rule="markdown", ask="tables/tables.markdown", count=12, longest=400),
    Part(name="chart-value", group="charts", rule="short", ask="charts/charts.value", count=16),
    Part(name="chart-compare", group="charts", rule="short", ask="charts/charts.largest,charts/charts.smallest",
         count=16),
    Part(name="count", group="counting", rule="number",
         ask="scenes/scenes.count,receipts/receipts.count,tables/tables.size", count=30),
    Part(name="presence", group="presence", rule="yes_no", ask="scenes/scenes.exists,forms/forms.has,cards/cards.has",
         count=30),
    Part(name="wide", group="aspect", rule="text", ask="lines/lines.read", count=10, aspect=10.0, level=0.1),
    Part(name="tall", group="aspect", rule="text", ask="lines/lines.read", count=10, aspect=0.12, level=0.1),
    Part(name="language", group="language", rule="short", ask="scenes/scenes.colour,scenes/scenes.shape", count=32,
         languages=FOLLOWED, level=0.1),
    Part(name="refusal", group="refusal", rule="refusal", ask=_MISSING, count=25),
)  # fmt: skip
