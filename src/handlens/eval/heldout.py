"""Ask a model about generated pictures whose fonts, words and layouts training never showed.

Boundary: sees the Answerer protocol only; the truth comes with every generated record.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from handlens.answerer import Answerer, ModelInfo
from handlens.core.chat import ask
from handlens.core.images import Picture
from handlens.core.sampling import Sampling
from handlens.data.generate import KINDS as ALL_KINDS
from handlens.data.generate import SPLITS, generate
from handlens.data.generate.language import language
from handlens.errors import DataError, SettingError, did_you_mean
from handlens.eval.measures import ENGLISH, Measure, measure, spoken_share
from handlens.eval.scorers import character_error_rate, wilson

KINDS = ("lines", "scenes", "receipts", "labels", "tables")
NAMED = ("scenes.colour", "scenes.shape", "scenes.exists")
"""Tasks whose answers are one word of the language asked in."""


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One question with its true and its given answer."""

    key: str
    task: str
    question: str
    truth: str
    answer: str
    language: str = "en"

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
    measure: Measure | None = None
    """What the task is measured by beside exact answers, where there is such a figure."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The scores and every answer behind them, with the settings that made them."""

    model: ModelInfo
    kinds: tuple[str, ...]
    count: int
    """Records per kind."""
    split: str
    seed: int
    level: float
    languages: tuple[str, ...]
    """Languages of the records, in turn."""
    sampling: Sampling
    scores: tuple[TaskScore, ...]
    answers: tuple[Answered, ...] = field(repr=False)


def score(task: str, answers: Sequence[Answered]) -> TaskScore:
    """Return the score of one task."""
    hits = sum(answer.is_exact for answer in answers)
    known = [answer for answer in answers if answer.language == "en" or task not in ENGLISH]
    return TaskScore(
        task=task,
        count=len(answers),
        exact=hits / max(len(answers), 1),
        interval=wilson(hits, len(answers)),
        cer=character_error_rate([(answer.truth, answer.answer.strip()) for answer in answers]),
        measure=measure(task, [(answer.truth, answer.answer) for answer in known]),
    )


def score_language(code: str, answers: Sequence[Answered]) -> TaskScore:
    """Return the score of all answers in one language, with the share that is in it."""
    facts = language(code).facts
    words = {*facts["colours"].values(), *facts["shapes"].values(), facts["words"]["yes"], facts["words"]["no"]}
    told = [answer.answer for answer in answers if answer.task in NAMED]
    spoken = spoken_share(told, {word.casefold() for word in words}) if told and code != "en" else None
    return replace(score(f"{code} (all)", answers), measure=spoken)


def evaluate(
    model: Answerer,
    *,
    kinds: Sequence[str] = KINDS,
    count: int = 100,
    seed: int = 1,
    split: str = "heldout",
    level: float = 0.5,
    max_tokens: int = 160,
    languages: Sequence[str] = ("en",),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Ask every question of ``count`` records per kind, each alone and greedily; ``languages`` take turns.

    Raises:
        DataError: an unknown kind, split or language, a kind that has no such language, or a level outside 0..1.
        NeedsExtra: the fonts of the generators are not installed.
    """
    for what, given, known in (*(("kind", kind, ALL_KINDS) for kind in kinds), ("split", split, SPLITS)):
        if given not in known:
            raise DataError(f"unknown {what} '{given}'{did_you_mean(given, known)}")
    sampling = Sampling(max_tokens=max_tokens)
    answers: list[Answered] = []
    total = count * len(kinds)
    for number, kind in enumerate(kinds):
        for index in range(count):
            record = generate(kind, seed, index, split=split, level=level, languages=languages)
            seen = model.see([Picture(record.picture, record.key)])
            for turn in record.turns:
                text = "".join(token.text for token in model.answer(ask(turn.question), seen, sampling))
                answers.append(
                    Answered(
                        key=record.key,
                        task=turn.task,
                        question=turn.question,
                        truth=turn.answer,
                        answer=text,
                        language=record.language,
                    )
                )
            progress(number * count + index + 1, total)
    tasks = sorted({answer.task for answer in answers})
    groups = [(task, [answer for answer in answers if answer.task == task]) for task in tasks]
    for kind in kinds:
        whole = [answer for answer in answers if answer.key.startswith(f"{kind}-")]
        groups.append((f"{kind} (all)", whole))
    scores = [score(task, group) for task, group in groups]
    if tuple(languages) != ("en",):
        scores += [
            score_language(code, [answer for answer in answers if answer.language == code])
            for code in dict.fromkeys(languages)
        ]
    return Report(
        model=model.info, kinds=tuple(kinds), count=count, split=split, seed=seed, level=level,
        languages=tuple(languages), sampling=sampling, scores=tuple(scores), answers=tuple(answers),
    )  # fmt: skip


def to_json(report: Report, *, with_answers: bool) -> dict[str, Any]:
    """Return settings and scores as plain values, and every answer where it is wanted."""
    fields = asdict(report)
    answers = fields.pop("answers")
    scores = fields.pop("scores")
    return {"settings": fields, "scores": scores} | ({"answers": answers} if with_answers else {})


def save_report(report: Report, file: Path) -> None:
    """Write every answer with the settings; the file appears whole or not at all.

    Raises:
        SettingError: the file cannot be written.
    """
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        text = json.dumps(to_json(report, with_answers=True), indent=1, ensure_ascii=False)
        unfinished.write_text(text + "\n", encoding="utf-8")
        unfinished.replace(file)
    except OSError as cause:
        raise SettingError(f"cannot write the report {file}: {cause.strerror or cause}") from None
    finally:
        unfinished.unlink(missing_ok=True)
