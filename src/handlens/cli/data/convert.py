"""``handlens data convert``: another format for a data set."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from handlens.data.convert import Tally


@click.command()
@click.argument("folder", metavar="SRC", type=click.Path(path_type=Path))
@click.option("--to", required=True, help="shards, llava, minicpm-v, parquet or folder.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="An empty folder.")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
def convert(folder: Path, to: str, out: Path, as_json: bool) -> None:
    """Write a data set in another format.

    \b
    handlens data convert shards/receipts --to llava --out receipts-llava
    handlens data convert train.json --to shards --out shards/train

    Pictures keep their bytes. Boxes, tables, tags and licences go along in every format. Samples that cannot go
    along are counted and named.
    """  # noqa: D301
    from handlens.data.convert import convert as write
    from handlens.data.formats import format_named, read_samples

    tally = write(read_samples(folder), format_named(to), out)
    if as_json:
        click.echo(json.dumps({"out": str(out), "format": to} | tally.to_json(), ensure_ascii=False))
    else:
        tell(tally)
        click.echo(out)
    need_some(tally, folder)


def need_some(tally: "Tally", folder: Path) -> None:
    """Refuse a data set of which nothing is left.

    Raises:
        DataError: samples were read and none was written.
    """
    from handlens.errors import DataError

    if tally.read and not tally.written:
        reason, count = tally.dropped.most_common(1)[0]
        raise DataError(
            f"nothing is left of {folder}: all {tally.read} samples were left out, {count} of them as {reason}; "
            f"see: handlens data check {folder}"
        )


def tell(tally: "Tally") -> None:
    """Print on stderr what became of the samples."""
    click.echo(f"{tally.read} read, {tally.written} written, {sum(tally.dropped.values())} left out", err=True)
    for reason, count in tally.dropped.most_common():
        names = tally.named.get(reason, [])
        more = " ..." if count > len(names[:5]) else ""
        click.echo(f"  {count} {reason}: {', '.join(names[:5])}{more}", err=True)
