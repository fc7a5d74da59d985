"""``handlens data show``: one sample as training sees it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from handlens.data.render import Target
    from handlens.data.samples import Sample


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("number", metavar="N", type=click.IntRange(min=0), default=0)
@click.option("--family", default="nano", show_default=True, help="Version whose slicing and prompt are used.")
@click.option("--model", default="nano", show_default=True, help="Folder whose tokenizer counts.")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), help="Write its first picture, as PNG.")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
def show(folder: Path, number: int, family: str, model: str, picture: Path | None, as_json: bool) -> None:
    """Show a sample as training sees it.

    \b
    handlens data show shards/receipts 3

    Samples are counted from 0. What the model learns to say stands between « and ».
    """  # noqa: D301
    from handlens.data.check import sample_at
    from handlens.data.formats import read_samples
    from handlens.data.render import open_target
    from handlens.errors import DataError

    sample = sample_at(read_samples(folder), number)
    target = open_target(model, family)
    if picture is not None:
        if not sample.images:
            raise DataError(f"sample {number} ({sample.key}) has no picture; leave out --picture")
        sample.images[0].open().image.save(picture, "PNG")
    if as_json:
        click.echo(json.dumps(describe(sample, target), ensure_ascii=False))
    else:
        tell(sample, target)


def describe(sample: "Sample", target: "Target") -> dict[str, object]:
    """Return everything that is known of a sample as plain JSON."""
    from handlens.data.check import look
    from handlens.data.render import show_mask

    seen = look(sample, target)
    row: dict[str, object] = {
        "sample": sample.key,
        "language": sample.language,
        "licence": sample.licence,
        "source": sample.source,
        "sizes": [list(size) for size in seen.sizes],
        "faults": [{"kind": fault.kind, "detail": fault.detail} for fault in seen.faults],
        "truth": sorted(sample.truth),
    }
    if seen.rendered is not None:
        row |= {
            "tokens": len(seen.rendered.ids),
            "targets": int(seen.rendered.is_target.sum()),
            "visual": int(seen.rendered.is_visual.sum()),
            "slices": seen.rendered.num_slices,
            "text": show_mask(seen.rendered, target.tokenizer),
            "ids": seen.rendered.ids.tolist(),
            "is_target": seen.rendered.is_target.tolist(),
        }
    return row


def tell(sample: "Sample", target: "Target", *, err: bool = False) -> None:
    """Print a sample for people."""
    row = describe(sample, target)
    sizes = ", ".join(f"{width}x{height}" for width, height in row["sizes"])  # type: ignore[attr-defined]
    click.echo(
        f"sample {row['sample']}: pictures {sizes or 'none'}; language {row['language'] or 'not given'}", err=err
    )
    for fault in row["faults"]:  # type: ignore[attr-defined]
        click.echo(f"  {fault['kind']}: {fault['detail']}", err=err)
    if "text" in row:
        counts = f"{row['tokens']} tokens, {row['targets']} learned, {row['visual']} visual, {row['slices']} slices"
        click.echo(f"{counts}\n{row['text']}", err=err)
