"""Ask a model every question of a task, mark the answers, add up.

Boundary: sees the Answerer protocol and tasks; files are the journal's and the report's business. What goes wrong
with one question (no picture, no answer, an error) is written down, counted as wrong and never left out.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any

from handlens.answerer import Answerer
from handlens.core.sampling import Sampling
from handlens.errors import DataError, HandlensError, ImageError
from handlens.eval.checksums import check_files
from handlens.eval.grader import RULES, Grader, agreement
from handlens.eval.journal import Given, Journal
from handlens.eval.readers import find_data, items_of, open_source
from handlens.eval.stats import Interval, bootstrap, share_interval
from handlens.eval.task import Item, Mark, Marked, Recipe, Task, Units

LONG_ANSWER = 20_000
"""Characters above which an answer is counted as run away."""
NOT_ASKED = ("no_picture", "failed")
"""Answers that another run asks for again: the picture or the endpoint may be there by then."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Result:
    """One number with everything that made it."""

    task: str
    title: str
    recipe: str
    model: str
    metric: str
    value: float | None
    interval: Interval | None
    figures: dict[str, float]
    count: int
    units: int
    counts: dict[str, int]
    """Answers by status, and ``duplicate_ids``, ``text_only`` (the row shows no picture), ``without_truth``,
    ``cut`` (the token limit was reached), ``run_away``."""
    grader: dict[str, Any]
    agreement: dict[str, float] | None
    """Grader against rules, where a grader was asked."""
    settings: dict[str, Any]
    higher_is_better: bool
    full_mark: float
    notes: tuple[str, ...]
    items: tuple[Item, ...] = field(default=(), repr=False)
    given: tuple[Given, ...] = field(default=(), repr=False)
    marks: tuple[Mark, ...] = field(default=(), repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return everything but the items and the answers, which the journal has."""
        skipped = ("items", "given", "marks")
        return {
            name: getattr(self, name) if name != "interval" else self.interval and asdict(self.interval)
            for name in self.__dataclass_fields__
            if name not in skipped
        }


def load_items(task: Task, data: Path | None, limit: int | None = None) -> tuple[list[Item], int]:
    """Return the items, and how many ids stood there twice; a repeated id is kept under a name of its own.

    ``limit`` keeps so many whole units, so that a circular question is never cut.

    Raises:
        DataError: the data is not there, is damaged or holds no question.
    """
    seen: Counter[str] = Counter()
    items: list[Item] = []
    units: dict[str, None] = {}
    for item in items_of(task, data):
        if limit is not None and item.unit not in units and len(units) >= limit:
            continue
        units[item.unit] = None
        seen[item.id] += 1
        items.append(item if seen[item.id] == 1 else replace(item, id=f"{item.id} (again, {seen[item.id]})"))
    if not items:
        raise DataError(f"{task.name} found no question that has an answer in {data or 'its suite'}; check the split")
    return items, sum(count - 1 for count in seen.values())


def fit(model: Answerer, sampling: Sampling) -> tuple[Sampling, str]:
    """Return decoding that the model can do, and what was changed."""
    if sampling.num_beams > 1 and not getattr(model, "has_beams", True):
        return replace(sampling, num_beams=1), (
            f"greedy: the endpoint has no beam search (the recipe asks for {sampling.num_beams} beams)"
        )
    return sampling, ""


def run_task(
    model: Answerer,
    task: Task,
    recipe: Recipe,
    items: Sequence[Item],
    *,
    label: str = "",
    fingerprint: str = "",
    data: Path | None = None,
    out: Path | None = None,
    duplicates: int = 0,
    grader: Grader | None = None,
    max_slices: int | None = None,
    jobs: int = 1,
    progress: Progress = lambda done, total: None,
) -> Result:
    """Ask, mark and add up; an answer that the journal under ``out`` has is not asked for again, a failure is.

    ``label`` names the model in tables and folders; ``jobs`` above 1 is for endpoints, which answer side by side.

    Raises:
        SettingError: the journal was written with other settings.
    """
    sampling, note = fit(model, recipe.sampling)
    recipe = replace(recipe, sampling=sampling)
    settings = {
        "model": {**asdict(model.info), "fingerprint": fingerprint},
        "task": task.name,
        "recipe": asdict(recipe),
        "max_slices": max_slices,
        "questions_sha256": hash_items(items),
        "data": describe_data(task, data),
    }
    label = label or model.info.name
    journal = Journal(out and out / slug(label) / f"{task.name}.{recipe.name}.jsonl", settings)
    _answer_all(model, recipe, items, journal, max_slices, jobs, progress)
    given = [journal.given[item.id] for item in items]
    return score(task, recipe, label, items, given, settings, grader=grader, duplicates=duplicates, note=note)


def score(
    task: Task,
    recipe: Recipe,
    model: str,
    items: Sequence[Item],
    given: Sequence[Given],
    settings: dict[str, Any],
    *,
    grader: Grader | None = None,
    duplicates: int = 0,
    note: str = "",
) -> Result:
    """Mark answers and add them up."""
    rules = [_by_rules(task, item, one) for item, one in zip(items, given, strict=True)]
    used = grader if task.grader is not None else None
    marks = _graded(task, items, given, rules, used) if used else rules
    units = gather(items, marks)
    figures = task.total(units)
    counts = Counter(one.status for one in given) + Counter(mark.status for mark in marks if mark.status != "ok")
    counts |= Counter(
        {
            "duplicate_ids": duplicates,
            "text_only": sum(not item.pictures for item in items),
            "without_truth": sum(not any(item.truth) for item in items),
            "run_away": sum(len(one.answer) > LONG_ANSWER for one in given),
            "cut": sum(one.tokens >= recipe.sampling.max_tokens for one in given),
        }
    )
    reasons = Counter(one.note for one in given if one.status in NOT_ASKED)
    likeliest = reasons.most_common(1)[0][0] if reasons else ""
    reason = f"{reasons.total()} of {len(given)} questions were not answered: {likeliest}" if reasons else ""
    ruled = "" if used or not task.grader else "marked by rules"
    notes = tuple(text for text in (task.notes, note, ruled, reason) if text)
    pairs = [
        (mark.score, rule.score) for mark, rule, one in zip(marks, rules, given, strict=True) if one.status == "ok"
    ]
    return Result(
        task=task.name,
        title=task.title,
        recipe=recipe.name,
        model=model,
        metric=task.metric,
        value=next(iter(figures.values())),
        interval=interval_of(task, units),
        figures=figures,
        count=len(items),
        units=len(units),
        counts=dict(sorted(counts.items())),
        grader=used.facts(task) if used else {"grader": RULES},
        agreement=agreement(pairs) if used else None,
        settings=settings,
        higher_is_better=task.higher_is_better,
        full_mark=task.full_mark,
        notes=notes,
        items=tuple(items),
        given=tuple(given),
        marks=tuple(marks),
    )


def interval_of(task: Task, units: Units) -> Interval | None:
    """Return the interval of the headline; units are drawn whole, and one unit alone has none."""
    if len(units) < 2:
        return None
    if task.is_mean and task.unit_score is not None:
        return share_interval([task.unit_score(unit) for unit in units], scale=100.0)
    if task.is_mean and all(len(unit) == 1 for unit in units):
        return share_interval([unit[0].score for unit in units], scale=100.0)
    return bootstrap(units, lambda drawn: next(iter(task.total(drawn).values())))


def gather(items: Sequence[Item], marks: Sequence[Mark]) -> list[list[Marked]]:
    """Return the marks by unit, in the order of the items."""
    units: dict[str, list[Marked]] = {}
    for item, mark in zip(items, marks, strict=True):
        marked = Marked(category=item.category, truth=item.truth, mark=mark, facts=item.facts)
        units.setdefault(item.unit, []).append(marked)
    return list(units.values())


def average(task: Task, parts: Sequence[Result], divide: dict[str, float]) -> Result:
    """Return the mean of the parts' headlines, each brought to 0..100; its interval takes them as independent."""
    values = [part.value / divide[part.task] for part in parts if part.value is not None]
    value = sum(values) / len(values)
    widths = [
        (part.interval.high - part.interval.low) / 2 / divide[part.task] for part in parts if part.interval is not None
    ]
    half = sum(width**2 for width in widths) ** 0.5 / len(parts)
    graders = {json.dumps(part.grader.get("grader")) for part in parts}
    notes = [task.notes] + (["parts are marked by rules and by a grader: see each"] if len(graders) > 1 else [])
    return Result(
        task=task.name,
        title=task.title,
        recipe=parts[0].recipe,
        model=parts[0].model,
        metric=task.metric,
        value=value,
        interval=Interval(low=value - half, high=value + half, method="from the parts' intervals"),
        figures={"mean": value} | {part.task: part.value or 0.0 for part in parts},
        count=sum(p.count for p in parts),
        units=sum(part.units for part in parts),
        counts=dict(sum((Counter(part.counts) for part in parts), Counter())),
        grader={"grader": "see the parts"},
        agreement=None,
        settings={"parts": [part.task for part in parts]},
        higher_is_better=True,
        full_mark=1.0,
        notes=tuple(note for note in notes if note),
    )


def hash_items(items: Sequence[Item]) -> str:
    """Return a hash of ids, questions, options and truths; pictures are not in it."""
    digest = sha256()
    for item in items:
        row = [item.id, item.question, list(item.options.items()), item.truth, item.category, item.unit]
        digest.update(json.dumps(row, ensure_ascii=False).encode())
    return digest.hexdigest()


def describe_data(task: Task, data: Path | None) -> dict[str, Any]:
    """Return the names and the checksum of the files, or the hash of a suite that ships with the package."""
    if not task.files:
        return {"suite": task.version()} if task.version() else {}
    files = find_data(data, task.name, task.files)
    md5, is_published = check_files(files)
    return {"files": [file.name for file in files], "md5": md5, "is_published_file": is_published}


def slug(name: str) -> str:
    """Return a name that any file system takes.

    >>> slug("openbmb/MiniCPM-V 2.6")
    'openbmb-MiniCPM-V-2.6'
    """
    return "".join(char if char.isalnum() or char in "._-" else "-" for char in name) or "model"


def _answer_all(
    model: Answerer,
    recipe: Recipe,
    items: Sequence[Item],
    journal: Journal,
    max_slices: int | None,
    jobs: int,
    progress: Progress,
) -> None:
    known = {name for name, given in journal.given.items() if given.status not in NOT_ASKED}
    waiting = [item for item in items if item.id not in known]
    done = len(items) - len(waiting)
    progress(done, len(items))
    shared = [list(group) for _, group in groupby(waiting, key=lambda item: item.pictures)]

    def answer(group: list[Item]) -> None:
        nonlocal done
        for given in _answer_group(model, recipe, group, max_slices):
            journal.add(given)
            done += 1
            progress(done, len(items))

    if jobs == 1:
        for group in shared:
            answer(group)
    else:
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(answer, shared))


def _answer_group(model: Answerer, recipe: Recipe, group: Sequence[Item], max_slices: int | None) -> Iterator[Given]:
    """Yield the answers to questions about the same pictures, which are encoded once."""
    try:
        pictures = [open_source(source, group[0].id) for source in group[0].pictures]
        seen = model.see(pictures, max_slices=max_slices)
    except HandlensError as error:
        status = "no_picture" if isinstance(error, ImageError) else "failed"
        yield from (Given(id=item.id, answer="", status=status, note=str(error)) for item in group)
        return
    for item in group:
        begin = time.perf_counter()
        texts: list[str] = []
        note = ""
        try:
            texts.extend(token.text for token in model.answer(recipe.chat(item), seen, recipe.sampling))
        except HandlensError as error:
            note = str(error)
        text = "".join(texts)
        status = "failed" if note else "ok" if text.strip() else "silent"
        yield Given(
            id=item.id,
            answer=text,
            status=status,
            note=note,
            tokens=len(texts),
            seconds=round(time.perf_counter() - begin, 3),
        )


def _by_rules(task: Task, item: Item, given: Given) -> Mark:
    mark = task.mark(item, given.answer)
    if given.status in NOT_ASKED:
        return replace(mark, score=0.0, status="ok")
    return replace(mark, status="ok") if given.status == "silent" else mark


def _graded(
    task: Task, items: Sequence[Item], given: Sequence[Given], rules: Sequence[Mark], grader: Grader
) -> list[Mark]:
    """Return the grader's marks where it is asked, the rules' elsewhere."""
    assert task.grader is not None
    marks = []
    for item, one, rule in zip(items, given, rules, strict=True):
        asked = one.status == "ok" and (task.grader.always or rule.status == "unparsed")
        marks.append(grader.mark(task, item, one.answer) if asked else rule)
    return marks
