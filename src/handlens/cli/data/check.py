"""``handlens data check``: the doctor of a data set."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from handlens.data.check import Report
    from handlens.data.samples import Found

SHOWN = 20
"""Problems of one kind that are listed for people."""


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--against", type=click.Path(path_type=Path), multiple=True, help="An evaluation set; repeatable.")
@click.option("--limit", type=click.IntRange(min=1), default=4096, show_default=True, help="Most tokens of a sample.")
@click.option("--family", default="nano", show_default=True, help="Version whose slicing and prompt are used.")
@click.option("--model", default="nano", show_default=True, help="Folder whose tokenizer counts.")
@click.option("--recipe", default="nano:sft", show_default=True, help="Whose price is told: RECIPE:PHASE.")
@click.option("--machine", default="epyc2", show_default=True, help="On which machine.")
@click.option("--show", type=click.IntRange(min=0), metavar="N", help="Show sample N as training sees it.")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
@click.pass_context
def check(
    ctx: click.Context, folder: Path, against: tuple[Path, ...], limit: int, family: str, model: str, recipe: str,
    machine: str, show: int | None, as_json: bool,
) -> int:  # fmt: skip
    """Name what is wrong with a data set.

    \b
    handlens data check shards/receipts
    handlens data check train.json --against shards/heldout --json

    Finds wrong placeholders, missing and damaged pictures, samples that are too long after slicing, duplicates,
    and samples of an evaluation set. Exit code 1 when there are problems. People are also told the languages
    and the price of training.
    """  # noqa: D301
    from handlens.cli.progress import progress_bar
    from handlens.data.check import check as check_samples
    from handlens.data.check import sample_at
    from handlens.data.formats import read_samples
    from handlens.data.price import price
    from handlens.data.render import open_target
    from handlens.data.samples import Damage, Fault
    from handlens.errors import DataError

    target = open_target(model, family)
    found: "Iterable[Found]"
    try:
        found = read_samples(folder)
    except DataError as error:
        if not folder.is_dir():
            raise
        found = [Damage(where=str(folder), fault=Fault("unreadable", str(error)))]
    held = [item for path in against for item in read_samples(path)]
    with progress_bar(f"check {folder.name}", "samples") as advance:
        report = check_samples(found, target, against=held, limit=limit, progress=lambda done: advance(done, None))
    cost = price(report, recipe, machine)
    if as_json:
        click.echo(json.dumps(report.to_json(), ensure_ascii=False))
    else:
        tell(report)
        from handlens.cli.data.price import tell as tell_price

        tell_price(cost)
    if show is not None:
        from handlens.cli.data.show import tell as tell_sample

        tell_sample(sample_at(read_samples(folder), show), target, err=as_json)
    return 1 if report.problems else 0


def tell(report: "Report") -> None:
    """Print problems by kind, then the mix of languages."""
    by_kind: dict[str, list[str]] = {}
    for problem in report.problems:
        by_kind.setdefault(problem.kind, []).append(f"{problem.sample}: {problem.fix}")
    for kind, lines in by_kind.items():
        click.echo(f"{kind} ({len(lines)})")
        for line in lines[:SHOWN]:
            click.echo(f"  {line}")
        if len(lines) > SHOWN:
            click.echo(f"  and {len(lines) - SHOWN} more (--json lists all)")
    click.echo(f"{report.samples} samples, {len(report.problems)} problems")
    for title, mix in (("languages", report.languages), ("licences", report.licences)):
        shares = [f"{name} {count / max(report.samples, 1):.1%}" for name, count in mix.most_common(12)]
        click.echo(f"{title}: {', '.join(shares) or 'none'}")
