"""``handlens eval``: how often a model is right: on drawn pictures, and on benchmarks."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from handlens.eval.heldout import Report
    from handlens.eval.runner import Result

_FILE = click.Path(dir_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command("eval")
@click.argument("model", default="nano")
@click.option("--list", "lists", is_flag=True, help="List the benchmarks.")
@click.option("--tasks", help="Benchmarks, with commas; a file ending with .py is one of your own.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder with the files of the benchmarks.")
@click.option("--compare", help="Another model, asked the same questions.")
@click.option("--out", type=_FOLDER, help="Folder for answers, results.json and report.html; a stopped run goes on.")
@click.option("--limit", type=click.IntRange(min=1), help="Ask so many questions of each benchmark only.")
@click.option("--recipe", type=click.Choice(["shipped", "leaderboard", "both"]), default="shipped", show_default=True,
              help="shipped: as a user asks; leaderboard: prompts and beams of the published numbers.")  # fmt: skip
@click.option("--grader", help="A model that grades free answers: http://host:port/v1#model.  [default: rules]")
@click.option("--grader-version", default="", help="What is stored as its version.  [default: the address]")
@click.option("--grader-prompts", type=_FOLDER, help="Folder of TASK.txt files in place of our prompts.")
@click.option(
    "--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Questions at a time; endpoints only."
)
@click.option("--max-slices", type=click.IntRange(min=1), help="Most slices of a picture.  [default: the model's]")
@click.option("--leakage", type=_FOLDER, help="Look for Handlens-Bench in this folder of training shards.")
@click.option("--kinds", default="", help="Kinds of drawn picture, with commas between them.  [default: all]")
@click.option(
    "--count", type=click.IntRange(min=1), default=100, show_default=True, help="Drawn pictures of each kind."
)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed draws the same pictures.")
@click.option("--split", default="heldout", show_default=True, help="heldout: words, fonts, layouts never trained on.")
@click.option("--level", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="0 clean, 1 hard.")
@click.option("--languages", default="en", show_default=True, help="Languages of drawn pictures, in turn: de,fr.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=160, show_default=True, help="Longest answer.")
@click.option("--report", "file", type=_FILE, help="Write every answer about drawn pictures, as JSON.")
@click.option("--mistakes", type=_FILE, help="Draw a page of wrong answers about drawn pictures, as PNG.")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
@click.pass_context
def evaluate(context: click.Context, /, **given: Any) -> None:
    """Measure how often a model is right.

    \b
    handlens eval nano --count 20
    handlens eval nano --tasks handlens-bench --compare runs/nano --out results
    handlens eval http://127.0.0.1:8000/v1 --tasks mmstar,mme --data benchmarks --recipe both --out results
    handlens eval --list

    MODEL is nano, the folder of a bundle or torch model, or the address of an OpenAI-compatible endpoint. Without
    --tasks, pictures are drawn with everything that is true of them (needs the extra 'data'): an answer is exact when
    it has the same characters; CER is edits per character. With --tasks, benchmarks are read from --data.
    """  # noqa: D301
    model, tasks, as_json = given["model"], given["tasks"], given["as_json"]
    _refuse_mixtures(context, tasks)
    if given["lists"]:
        _list(as_json)
    elif given["leakage"] is not None:
        _look_for_leaks(given["leakage"], as_json)
    elif tasks is not None:
        _run_tasks(model, tasks, as_json, given)
    else:
        _run_drawn(model, as_json, given)


_DRAWN = ("kinds", "count", "seed", "split", "level", "languages", "max_tokens", "file", "mistakes")
_BENCHMARKS = (
    "data",
    "compare",
    "out",
    "limit",
    "recipe",
    "grader",
    "grader_version",
    "grader_prompts",
    "jobs",
    "max_slices",
)


def _refuse_mixtures(context: click.Context, tasks: str | None) -> None:
    """Refuse an option of the other half, which would silently have no effect."""
    given = [name for name in (*_DRAWN, *_BENCHMARKS) if context.get_parameter_source(name) is not None
             and context.get_parameter_source(name).name == "COMMANDLINE"]  # type: ignore[union-attr] # fmt: skip
    wrong = [name for name in given if name in (_DRAWN if tasks is not None else _BENCHMARKS)]
    if wrong:
        option = "--report" if wrong[0] == "file" else f"--{wrong[0].replace('_', '-')}"
        raise click.UsageError(
            f"{option} {'is for drawn pictures and has no effect on' if tasks is not None else 'needs'} --tasks"
        )


def _list(as_json: bool) -> None:
    from handlens.eval.tasks import known_tasks

    rows = [{"name": task.name, "metric": task.metric, "needs": task.needs} for task in known_tasks().values()]
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for name in ("name", "metric", "needs"):
        table.add_column(name)
    for row in rows:
        table.add_row(row["name"], row["metric"], row["needs"])
    Console().print(table)


def _run_tasks(model: str, names: str, as_json: bool, choices: dict[str, Any]) -> None:
    from handlens.cli.progress import progress_bar
    from handlens.eval import session
    from handlens.eval.tasks import find_tasks

    tasks = find_tasks(names)
    out: Path | None = choices["out"]
    first = session.open_model(model)
    second = session.open_model(choices["compare"]) if choices["compare"] else None
    grader = None
    if choices["grader"]:
        cache = out / "grader.jsonl" if out else None
        grader = session.open_grader(choices["grader"], choices["grader_version"], choices["grader_prompts"], cache)
    if choices["jobs"] > 1 and any(getattr(one.model, "has_beams", True) for one in (first, second) if one):
        raise click.UsageError("--jobs is for endpoints; a model in this process answers one question at a time")
    with progress_bar(f"eval {first.label}", "questions") as advance:
        results, comparisons = session.evaluate(
            first, second, tasks, data=choices["data"], out=out, recipe=choices["recipe"], limit=choices["limit"],
            grader=grader, max_slices=choices["max_slices"], jobs=choices["jobs"], news=advance,
        )  # fmt: skip
    if as_json:
        click.echo(json.dumps(session.to_json(results, comparisons), ensure_ascii=False))
    else:
        _show_results(results, comparisons)
        if out is not None:
            click.echo(f"wrote {out / 'report.html'}", err=True)
    _end_if_none_answered(results)


def _end_if_none_answered(results: "Sequence[Result]") -> None:
    """End with 1 where a model answered nothing: a name or a folder is wrong, and its 0 is no measure of it."""
    from handlens.errors import ModelError

    for result in results:
        lost = result.counts.get("failed", 0) + result.counts.get("no_picture", 0)
        if result.items and lost == result.count:
            raise ModelError(f"{result.model} answered nothing of {result.task}: {result.notes[-1]}")


def _show_results(results: "Sequence[Result]", comparisons: Sequence[dict[str, Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from handlens.eval.report import find_result, number
    from handlens.eval.task import LEADERBOARD, SHIPPED

    table = Table(box=box.SIMPLE_HEAD)
    for name in ("task", "model", "metric", "as shipped", "leaderboard recipe", "n", "marked by"):
        table.add_column(name, justify="right" if name in ("as shipped", "leaderboard recipe", "n") else "left")
    for task, label in dict.fromkeys((result.task, result.model) for result in results):
        columns = [find_result(results, label, task, recipe) for recipe in (SHIPPED, LEADERBOARD)]
        one = next(result for result in columns if result is not None)
        table.add_row(task, label, one.metric, *(number(column) for column in columns), str(one.count),
                      str(one.grader["grader"]))  # fmt: skip
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table)
    for result in results:
        odd = {name: count for name, count in result.counts.items() if name != "ok" and count}
        if odd:
            told = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in odd.items())
            where = f"{result.task}, {result.model}, {result.recipe}"
            console.print(f"{where}: {told} of {result.count}", highlight=False, markup=False)
    for gap in comparisons:
        console.print(
            f"{gap['task']}, {gap['recipe']}: {gap['first']} minus {gap['second']} is {gap['difference']:+.1f} "
            f"({gap['interval']['low']:+.1f} to {gap['interval']['high']:+.1f}), p {gap['p']:.3g} ({gap['test']})",
            markup=False,
            highlight=False,
        )


def _look_for_leaks(folder: Path, as_json: bool) -> None:
    from handlens.eval.leakage import check_shards

    found = check_shards(folder)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    click.echo(
        f"{found['records']} training records against {found['items']} items of handlens-bench {found['suite'][:12]}"
    )
    for name in ("same_picture", "near_picture", "same_question_and_answer"):
        click.echo(f"{name.replace('_', ' ')}: {found[name]}")


def _run_drawn(model: str, as_json: bool, choices: dict[str, Any]) -> None:
    from handlens.cli.progress import progress_bar
    from handlens.errors import NeedsExtra, SettingError
    from handlens.eval import heldout
    from handlens.eval.session import open_model

    file, page = choices["file"], choices["mistakes"]
    for what, path in (("report", file), ("page", page)):
        if path is not None and not path.parent.is_dir():  # before the work, not after it
            raise SettingError(f"cannot write the {what} {path}: there is no folder {path.parent}")
    chosen = _names_in(choices["kinds"]) or heldout.KINDS
    answerer = open_model(model).model
    try:
        with progress_bar(f"eval {answerer.info.name}", "pictures") as advance:
            report = heldout.evaluate(
                answerer, kinds=chosen, count=choices["count"], seed=choices["seed"], split=choices["split"],
                level=choices["level"], max_tokens=choices["max_tokens"],
                languages=_names_in(choices["languages"]) or ("en",), progress=advance,
            )  # fmt: skip
    except NeedsExtra as cause:
        raise SettingError(f"{cause}; or measure without it: handlens eval {model} --tasks handlens-bench") from None
    if file is not None:
        heldout.save_report(report, file)
    if page is not None:
        from handlens.eval.mistakes import save_mistakes

        save_mistakes(report, page)
    if as_json:
        click.echo(json.dumps(heldout.to_json(report, with_answers=False), ensure_ascii=False))
    else:
        show(report)


def _names_in(text: str) -> tuple[str, ...]:
    """Return the names between commas, each once."""
    return tuple(dict.fromkeys(name for part in text.split(",") if (name := part.strip())))


def show(report: "Report") -> None:
    """Print the scores as a table."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{report.model.name}, {report.split}, {report.count} pictures of each kind, level {report.level:g}",
        box=box.SIMPLE_HEAD,
        title_justify="left",
    )
    table.add_column("task")
    for name in ("n", "exact", "95 % interval", "CER"):
        table.add_column(name, justify="right")
    table.add_column("measured by")
    for score in report.scores:
        low, high = score.interval
        row = [str(score.count), f"{score.exact:.1%}", f"{low:.1%} to {high:.1%}", f"{score.cer:.3f}"]
        if (one := score.measure) is not None:
            row.append(f"{one.name} {one.value:.1%}, {one.interval[0]:.1%} to {one.interval[1]:.1%}")
        table.add_row(score.task, *row, style="bold" if score.task.endswith("(all)") else None)
    Console().print(table)
