"""Ask a model about generated pictures whose fonts, words and layouts training never showed.

Boundary: sees the Answerer protocol only; the truth comes with every generated record.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from handlens.answerer import Answerer
from handlens.core.chat import ask
from handlens.core.images import Picture
from handlens.core.sampling import Sampling
from handlens.data.generate import generate
from handlens.eval.scorers import character_error_rate, wilson

KINDS = ("lines", "scenes", "receipts", "labels", "tables")


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One question with its true and its given answer."""

    key: str
    task: str
    question: str
    truth: str
    answer: str

    @property
    def is_exact(self) -> bool:
        """The same characters, white space at the ends aside."""
        return self.answer.strip() == self.truth.strip()


@dataclass(frozen=True, kw_only=True)
class TaskScore:
    """What the answers of one task amount to."""

    task: str
    count: int
    exact: float
    interval: tuple[float, float]
    """95 % Wilson interval of ``exact``."""
    cer: float
    """Edits per true character."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The scores and every answer behind them, with the settings that made them."""

    model: str
    split: str
    seed: int
    level: float
    sampling: Sampling
    scores: tuple[TaskScore, ...]
    answers: tuple[Answered, ...] = field(repr=False)


def score(task: str, answers: Sequence[Answered]) -> TaskScore:
    """Return the score of one task."""
    hits = sum(answer.is_exact for answer in answers)
    return TaskScore(
        task=task,
        count=len(answers),
        exact=hits / max(len(answers), 1),
        interval=wilson(hits, len(answers)),
        cer=character_error_rate([(answer.truth, answer.answer.strip()) for answer in answers]),
    )


def evaluate(
    model: Answerer,
    *,
    kinds: Sequence[str] = KINDS,
    count: int = 100,
    seed: int = 1,
    split: str = "heldout",
    level: float = 0.5,
    max_tokens: int = 160,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Ask every question of ``count`` records per kind, each alone and greedily.

    Raises:
        DataError: an unknown kind or split.
    """
    sampling = Sampling(max_tokens=max_tokens)
    answers: list[Answered] = []
    total = count * len(kinds)
    for number, kind in enumerate(kinds):
        for index in range(count):
            record = generate(kind, seed, index, split=split, level=level)
            seen = model.see([Picture(record.picture, record.key)])
            for turn in record.turns:
                text = "".join(token.text for token in model.answer(ask(turn.question), seen, sampling))
                answers.append(
                    Answered(key=record.key, task=turn.task, question=turn.question, truth=turn.answer, answer=text)
                )
            progress(number * count + index + 1, total)
    tasks = sorted({answer.task for answer in answers})
    groups = [(task, [answer for answer in answers if answer.task == task]) for task in tasks]
    for kind in kinds:
        whole = [answer for answer in answers if answer.task.startswith(f"{kind}.")]
        groups.append((f"{kind} (all)", whole))
    return Report(
        model=model.info.name, split=split, seed=seed, level=level, sampling=sampling,
        scores=tuple(score(task, group) for task, group in groups), answers=tuple(answers),
    )  # fmt: skip
