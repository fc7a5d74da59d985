"""``handlens eval``: how often a model is right on pictures whose truth is known."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from handlens.eval.heldout import Report


@click.command("eval")
@click.argument("model", default="nano")
@click.option("--kinds", default="", help="Kinds of picture, with commas between them.  [default: all]")
@click.option("--count", type=click.IntRange(min=1), default=100, show_default=True, help="Pictures of each kind.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed draws the same pictures.")
@click.option("--split", default="heldout", show_default=True, help="heldout: words, fonts, layouts never trained on.")
@click.option("--level", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="0 clean, 1 hard.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=160, show_default=True, help="Longest answer.")
@click.option("--report", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write every answer, as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
def evaluate(
    model: str,
    kinds: str,
    count: int,
    seed: int,
    split: str,
    level: float,
    max_tokens: int,
    file: Path | None,
    as_json: bool,
) -> None:
    """Measure how often a model is right.

    \b
    handlens eval nano --count 20
    handlens eval nano --kinds lines,receipts --split validation --report answers.json

    Pictures are drawn with everything that is true of them, and every question about them is asked. An answer is
    exact when it has the same characters; CER is edits per character. Needs the extra 'data'.
    """  # noqa: D301
    import handlens
    from handlens.cli.progress import progress_bar
    from handlens.errors import SettingError
    from handlens.eval import heldout

    if file is not None and not file.parent.is_dir():  # before the work, not after it
        raise SettingError(f"cannot write the report {file}: there is no folder {file.parent}")
    chosen = tuple(dict.fromkeys(kind.strip() for kind in kinds.split(",") if kind.strip())) or heldout.KINDS
    answerer = handlens.load(model, keep=True)
    with progress_bar(f"eval {answerer.info.name}", "pictures") as advance:
        report = heldout.evaluate(
            answerer, kinds=chosen, count=count, seed=seed, split=split, level=level, max_tokens=max_tokens,
            progress=advance,
        )  # fmt: skip
    if file is not None:
        heldout.save_report(report, file)
    if as_json:
        click.echo(json.dumps(heldout.to_json(report, with_answers=False), ensure_ascii=False))
    else:
        show(report)


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
    for score in report.scores:
        low, high = score.interval
        row = (str(score.count), f"{score.exact:.1%}", f"{low:.1%} to {high:.1%}", f"{score.cer:.3f}")
        table.add_row(score.task, *row, style="bold" if score.task.endswith("(all)") else None)
    Console().print(table)
