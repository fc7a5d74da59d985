"""What some tasks are measured by beside exact answers: cells of a table, values of a chart, presence, the language.

Boundary: (truth, answer) pairs of one task in, one figure with its interval out.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser

from handlens.eval.scorers import wilson
from handlens.eval.stats import bootstrap

Pair = tuple[str, str]
"""The true answer and the given one."""
Cells = Counter[tuple[int, int, str]]
NEAR = 0.05
"""Relative error up to which a value read from a chart is right."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A figure of one task, 0 to 1."""

    name: str
    value: float
    interval: tuple[float, float]
    """95 %: Wilson for shares, percentile bootstrap over answers else; 0 to 1 from one answer."""


def cells_of(text: str) -> Cells:
    r"""Return the cells of a markdown or HTML table: row, column and text of each.

    >>> sorted(cells_of("| a | b |\n| --- | --- |\n| 1 | 2 |"))
    [(0, 0, 'a'), (0, 1, 'b'), (1, 0, '1'), (1, 1, '2')]
    """
    rows = _html_rows(text) if "<t" in text else _markdown_rows(text)
    return Counter(
        (row, column, " ".join(cell.split()).casefold())
        for row, cells in enumerate(rows)
        for column, cell in enumerate(cells)
    )


def _markdown_rows(text: str) -> list[list[str]]:
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in text.splitlines() if "|" in line]
    return [row for row in rows if not all(re.fullmatch(r":?-+:?", cell) for cell in row)]


def _html_rows(text: str) -> list[list[str]]:
    class Reader(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.rows: list[list[str]] = []

        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag == "tr":
                self.rows.append([])
            elif tag in ("td", "th"):
                if not self.rows:
                    self.rows.append([])
                self.rows[-1].append("")

        def handle_data(self, data: str) -> None:
            if self.rows and self.rows[-1]:
                self.rows[-1][-1] += data

    reader = Reader()
    reader.feed(text)
    return reader.rows


def f1(right: int, given: int, true: int) -> float:
    """Return the harmonic mean of precision and recall; 1 where there was nothing to find and nothing was said."""
    return 2 * right / (given + true) if given + true else 1.0


def cell_f1(pairs: Sequence[Pair]) -> Measure:
    """F1 of the cells of all tables: one is right in its row and column only, case and spaces aside."""
    counted = [
        ((mine := cells_of(answer)) & (true := cells_of(truth)), mine, true) for truth, answer in pairs
    ]  # fmt: skip
    sums = [(both.total(), mine.total(), true.total()) for both, mine, true in counted]
    return _over("cell F1", sums, lambda rows: f1(*(sum(column) for column in zip(*rows, strict=True))))


def near_share(pairs: Sequence[Pair]) -> Measure:
    """Share of numbers within 5 % of the truth."""
    hits = sum(_is_near(truth, answer) for truth, answer in pairs)
    return Measure(name="within 5 %", value=hits / max(len(pairs), 1), interval=wilson(hits, len(pairs)))


def _is_near(truth: str, answer: str) -> bool:
    wanted, found = number_in(truth), number_in(answer)
    return wanted is not None and found is not None and abs(found - wanted) <= NEAR * abs(wanted)


def number_in(text: str) -> float | None:
    """Return the first number of a text, thousands between commas or not; None without one."""
    found = re.search(r"-?\d[\d,]*(?:\.\d+)?", text)
    return float(found[0].replace(",", "")) if found else None


def presence_f1(pairs: Sequence[Pair]) -> Measure:
    """F1 of "yes" to whether something is there."""
    marks = [(truth.strip() == "yes", answer.strip().casefold().startswith("yes")) for truth, answer in pairs]
    sums = [(int(there and said), int(said), int(there)) for there, said in marks]
    return _over("presence F1", sums, lambda rows: f1(*(sum(column) for column in zip(*rows, strict=True))))


def spoken_share(answers: Sequence[str], known: Collection[str]) -> Measure:
    """Share of answers that are words of the language asked in; ``known`` are its answers to such questions."""
    hits = sum(answer.strip().casefold() in known for answer in answers)
    return Measure(name="in the language asked", value=hits / max(len(answers), 1), interval=wilson(hits, len(answers)))


MEASURES: dict[str, Callable[[Sequence[Pair]], Measure]] = {
    "tables.markdown": cell_f1,
    "tables.html": cell_f1,
    "charts.markdown": cell_f1,
    "charts.value": near_share,
    "scenes.exists": presence_f1,
}
"""Task -> its measure."""
ENGLISH = frozenset({"scenes.exists"})
"""Tasks whose measure knows the words of English only."""


def measure(task: str, pairs: Sequence[Pair]) -> Measure | None:
    """Return the measure of a task, None where exact answers and edits say all."""
    return MEASURES[task](pairs) if task in MEASURES and pairs else None


def _over(name: str, rows: list[tuple[int, int, int]], statistic: Callable[..., float]) -> Measure:
    interval = bootstrap(rows, statistic)
    known = len(rows) > 1
    return Measure(name=name, value=statistic(rows), interval=(interval.low, interval.high) if known else (0.0, 1.0))
