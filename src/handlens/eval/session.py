"""One call of ``handlens eval --tasks``: models, tasks and recipes in, results and a page out.

Boundary: opens models and writes files; asking, marking and adding up are in ``runner``.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handlens.answerer import Answerer
from handlens.errors import DataError, ModelError, SettingError, did_you_mean
from handlens.eval.compare import compare
from handlens.eval.grader import Grader
from handlens.eval.report import check_one_grader, find_result, write_page
from handlens.eval.runner import Result, average, load_items, run_task, slug
from handlens.eval.task import LEADERBOARD, SHIPPED, Item, Recipe, Task
from handlens.eval.tasks import known_tasks

if TYPE_CHECKING:
    from handlens.engine.openai import Endpoint

RECIPES = {"shipped": (SHIPPED,), "leaderboard": (LEADERBOARD,), "both": (SHIPPED, LEADERBOARD)}
LARGEST_HASHED = 2_000_000_000
"""Bytes of a weight file above which only its size and the configuration are hashed."""

News = Callable[..., None]
"""``news(done, of, name=...)``"""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A model, what it is called in tables, and a hash of its files ('' for an endpoint)."""

    label: str
    model: Answerer
    fingerprint: str


def open_model(name: str) -> Asked:
    """Return the model of a name, a folder, or the address of an OpenAI-compatible endpoint (``http://.../v1#model``).

    Raises:
        ModelError: there is no such model, or the endpoint cannot be reached.
    """
    if name.startswith(("http://", "https://")):
        from handlens.engine.openai import open_endpoint

        remote = open_endpoint(name)
        _knock(remote.endpoint)
        return Asked(label=remote.model, model=remote, fingerprint="")
    import handlens

    folder = handlens.PACKAGED.get(name, Path(name))
    return Asked(
        label=name if name in handlens.PACKAGED else folder.resolve().name,
        model=handlens.load(name, keep=True, profile=False),
        fingerprint=hash_model(folder),
    )


def _knock(endpoint: "Endpoint") -> None:
    """Raise ``ModelError`` where nobody answers; one that has no list of models, or refuses it, is there."""
    try:
        endpoint.models()
    except ModelError as error:
        if "cannot reach" in str(error):
            raise


def hash_model(folder: Path) -> str:
    """Return a hash of a bundle's manifest, which holds the hashes of its files, or of a torch model's files."""
    digest = hashlib.sha256()
    for name in ("manifest.json", "config.json", "model.safetensors"):
        file = folder / name
        if not file.is_file():
            continue
        if file.stat().st_size > LARGEST_HASHED:
            digest.update(f"{name} {file.stat().st_size}".encode())
        else:
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        if name == "manifest.json":
            break
    return digest.hexdigest()


def open_grader(address: str, version: str, prompts: Path | None, cache: Path | None) -> Grader:
    """Return a grader behind an endpoint; ``prompts`` is a folder of ``<task>.txt`` files in place of our own words.

    Raises:
        ModelError: the endpoint cannot be reached.
        SettingError: a prompt file names no task or does not show the answer.
    """
    from handlens.engine.openai import open_endpoint

    remote = open_endpoint(address)
    texts: dict[str, str] = {}
    for file in sorted(prompts.glob("*.txt")) if prompts else ():
        if file.stem not in known_tasks():
            raise SettingError(f"the prompt file {file} names no task{did_you_mean(file.stem, known_tasks())}")
        texts[file.stem] = file.read_text(encoding="utf-8")
        if "{answer}" not in texts[file.stem]:
            raise SettingError(f"the prompt file {file} has no {{answer}}, so the grader would not see the answer")
    return Grader(
        name=remote.model, version=version or remote.endpoint.base, say=remote.say, cache=cache, prompts=texts
    )


def evaluate(
    first: Asked,
    second: Asked | None,
    tasks: Sequence[Task],
    *,
    data: Path | None = None,
    out: Path | None = None,
    recipe: str = "shipped",
    limit: int | None = None,
    grader: Grader | None = None,
    max_slices: int | None = None,
    jobs: int = 1,
    news: News = lambda *told, **named: None,
) -> tuple[list[Result], list[dict[str, Any]]]:
    """Run every task on one or two models and write ``results.json`` and ``report.html`` under ``out``.

    All data is read before the first question is asked, so that a missing file costs no time.

    Raises:
        DataError: data is missing.
        SettingError: ``out`` has answers or numbers of other settings.
    """
    plain = {task.name: task for task in _expand(tasks)}
    read = _read_all(plain, data, limit)
    asked = [first] if second is None else [first, second]
    if second is not None and second.label == first.label:
        raise SettingError(f"both models are called '{first.label}'; give the folder of one another name")
    results = [
        run_task(
            one.model,
            plain[name],
            way,
            items,
            label=one.label,
            fingerprint=one.fingerprint,
            data=data,
            out=out,
            duplicates=duplicates,
            grader=grader,
            max_slices=max_slices,
            jobs=jobs,
            progress=functools.partial(news, name=f"{one.label} {name} {way.name}"),
        )
        for one in asked
        for name, (items, duplicates) in read.items()
        for way in _ways(plain[name], recipe)
    ]
    averaged = [(one.label, task) for one in asked for task in tasks if task.parts]
    results += [row for label, task in averaged for row in _averages(task, label, results, plain)]
    comparisons = [] if second is None else _compare_all(results, plain, first.label, second.label)
    check_one_grader(results)
    if out is not None:
        save(results, comparisons, out)
    return results, comparisons


def to_json(results: Sequence[Result], comparisons: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return results and differences as plain values."""
    from handlens import __version__

    return {
        "handlens": __version__,
        "results": [result.to_json() for result in results],
        "comparisons": list(comparisons),
    }


def save(results: Sequence[Result], comparisons: Sequence[dict[str, Any]], out: Path) -> None:
    """Write ``results.json``, ``report.html``, and one ``.marks.jsonl`` beside each journal.

    Raises:
        SettingError: a file cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(to_json(results, comparisons), indent=1, ensure_ascii=False)
        (out / "results.json").write_text(text + "\n", encoding="utf-8")
        for result in (result for result in results if result.items):
            rows = (
                {
                    "id": item.id,
                    "question": item.question,
                    "truth": item.truth,
                    "answer": given.answer,
                    "score": mark.score,
                    "read_as": mark.extracted,
                    "answer_status": given.status,
                    "mark_status": mark.status,
                }
                for item, given, mark in zip(result.items, result.given, result.marks, strict=True)
            )
            file = out / slug(result.model) / f"{result.task}.{result.recipe}.marks.jsonl"
            file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    except OSError as cause:
        raise SettingError(f"cannot write under {out}: {cause.strerror or cause}") from None
    write_page(results, comparisons, out / "report.html")


def _expand(tasks: Sequence[Task]) -> list[Task]:
    return [part for task in tasks for part in ([known_tasks()[name] for name in task.parts] if task.parts else [task])]


def _read_all(tasks: dict[str, Task], data: Path | None, limit: int | None) -> dict[str, tuple[list[Item], int]]:
    read, missing = {}, []
    for task in tasks.values():
        try:
            read[task.name] = load_items(task, data, limit)
        except DataError as error:
            missing.append(str(error))
    if missing:
        raise DataError("; ".join(missing))
    return read


def _ways(task: Task, recipe: str) -> list[Recipe]:
    """Return the recipes that are asked for; a task without a leaderboard recipe has only its own."""
    return [way for name in RECIPES[recipe] if (way := task.recipe(name)) is not None] or [task.recipes[0]]


def _averages(task: Task, label: str, results: Sequence[Result], plain: dict[str, Task]) -> list[Result]:
    rows = []
    for recipe in (SHIPPED, LEADERBOARD):
        parts = [find_result(results, label, name, recipe) for name in task.parts]
        if parts and all(parts):
            whole = [part for part in parts if part is not None]
            rows.append(average(task, whole, {name: plain[name].divide_by for name in task.parts}))
    return rows


def _compare_all(results: Sequence[Result], plain: dict[str, Task], first: str, second: str) -> list[dict[str, Any]]:
    pairs = [(row, find_result(results, second, row.task, row.recipe)) for row in results if row.model == first]
    return [compare(plain[one.task], one, two) for one, two in pairs if two is not None and one.task in plain]
