"""What a benchmark is: where its questions lie, how one is asked, how an answer is marked, how marks add up.

Boundary: plain data and small functions; no model, no files. A benchmark is one ``Task``; see
docs/add-a-benchmark.md.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from handlens.core.chat import Shown, Turn
from handlens.core.images import Picture
from handlens.core.sampling import Sampling


@dataclass(frozen=True)
class Encoded:
    """A picture file as base64 text, decoded when it is opened."""

    text: str


PictureSource = Path | bytes | Encoded | Picture


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question of a benchmark."""

    id: str
    question: str
    truth: tuple[str, ...]
    """Accepted answers; for a choice its letter."""
    pictures: tuple[PictureSource, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    """Letter -> text."""
    hint: str = ""
    category: str = ""
    group: str = ""
    """Items with equal groups are drawn and counted together: one picture, one circular question. Default: the id."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else the marking needs."""

    @property
    def unit(self) -> str:
        """The group, or the id of an item that stands alone."""
        return self.group or self.id


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What one answer is worth."""

    score: float
    """0 to 1 unless the task says otherwise."""
    extracted: str = ""
    """What the rule or the grader took as the answer."""
    status: str = "ok"
    """ok, unparsed (no rule found an answer), grader_unparsed (the grader's reply could not be read)."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Numbers that the total needs beside the score."""


@dataclass(frozen=True, kw_only=True)
class Marked:
    """A mark with what the total knows of its item."""

    category: str
    truth: tuple[str, ...]
    mark: Mark
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """The mark's score."""
        return self.mark.score


Units = Sequence[Sequence[Marked]]
"""Marks by unit: the items of one group stand together."""
Total = Callable[[Units], dict[str, float]]
"""Returns named figures, the headline first."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a question is put: words, order and decoding. It is stored with every number."""

    name: str
    template: str = "{question}"
    """Filled with ``question``, ``options`` and ``hint``; the last two end with a line break where they are there."""
    before: str = ""
    """Text in front of the pictures."""
    sampling: Sampling = field(default_factory=lambda: Sampling(max_tokens=256))
    source: str = ""
    """Where the words and the decoding come from."""

    def chat(self, item: Item) -> tuple[Turn, ...]:
        """Return the conversation: text before, pictures, the question."""
        options = "".join(f"{letter}. {text}\n" for letter, text in item.options.items())
        text = self.template.format(
            question=item.question,
            options=f"Options:\n{options}" if options else "",
            hint=f"Hint: {item.hint}\n" if item.hint else "",
        ).strip()
        shown = tuple(Shown(place) for place in range(len(item.pictures)))
        return (Turn("user", (*([self.before] if self.before else []), *shown, text)),)


RowReader = Callable[[Mapping[str, Any], Path, int], Item | None]
"""``(row, folder, number)`` -> the item, or None for a row that is not of this task."""
SHIPPED = "shipped"
LEADERBOARD = "leaderboard"


@dataclass(frozen=True, kw_only=True)
class GraderUse:
    """What a grader is asked in this task. Words of our own; the name and a hash are stored with every number."""

    template: str
    """Filled with ``question``, ``options``, ``truth``, ``answer``, ``context`` and ``reference``."""
    read: Callable[[Item, str, str], Mark | None]
    """``(item, answer, reply)`` -> the mark, or None where the reply cannot be read."""
    always: bool = False
    """False: only answers that the rules cannot read are graded."""
    max_tokens: int = 64


@dataclass(frozen=True, kw_only=True)
class Task:
    """One benchmark."""

    name: str
    title: str
    metric: str
    """The headline figure with its unit, in words."""
    needs: str
    """What has to be there: files, an extra, a grader."""
    mark: Callable[[Item, str], Mark]
    """Marks an answer by rules alone."""
    total: Total
    recipes: tuple[Recipe, ...]
    """The first is ``shipped``; ``leaderboard`` follows where there is one."""
    files: tuple[str, ...] = ()
    """Stems of the files that may hold the questions, in the folder that the user names."""
    read: RowReader | None = None
    """Makes an item of a row of those files."""
    draw: Callable[[Path | None], Iterator[Item]] | None = None
    """Takes the place of ``files`` and ``read`` where the questions come from elsewhere."""
    grader: GraderUse | None = None
    is_mean: bool = True
    """True when the headline is 100 times the mean score of the units."""
    unit_score: Callable[[Sequence[Marked]], float] | None = None
    """Score of one unit where the headline is a mean over units of several items."""
    full_mark: float = 1.0
    """The best score of one answer."""
    higher_is_better: bool = True
    divide_by: float = 1.0
    """Brings the headline to 0..100 for an average over tasks."""
    parts: tuple[str, ...] = ()
    """Names of the tasks that this one averages; such a task has no questions of its own."""
    notes: str = ""
    """What a reader has to know about the number."""
    version: Callable[[], str] = lambda: ""
    """Hash of a suite that ships with the package; '' where the user's files are the data."""

    def recipe(self, name: str) -> Recipe | None:
        """Return the recipe of that name, or None."""
        return next((recipe for recipe in self.recipes if recipe.name == name), None)


def accuracy(units: Units) -> dict[str, float]:
    """Return 100 times the mean score, and the same per category."""
    every = [marked for unit in units for marked in unit]
    return {"accuracy": percent(every), **by_category(every)}


def percent(marks: Sequence[Marked]) -> float:
    """Return 100 times the mean score; 0 where there is none."""
    return 100 * sum(marked.score for marked in marks) / max(len(marks), 1)


def by_category(marks: Sequence[Marked]) -> dict[str, float]:
    """Return the percentage of every category, in alphabetical order."""
    names = sorted({marked.category for marked in marks if marked.category})
    return {name: percent([marked for marked in marks if marked.category == name]) for name in names}
