"""``handlens data pack``: samples in rows of fixed length."""

import json
from pathlib import Path

import click


@click.command()
@click.argument("folder", metavar="SRC", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="An empty folder.")
@click.option("--tokens", type=click.IntRange(min=1), default=2048, show_default=True, help="Tokens of a row.")
@click.option("--slices", type=click.IntRange(min=1), default=32, show_default=True, help="Most slices of a row.")
@click.option("--family", default="nano", show_default=True, help="Version whose slicing and prompt are used.")
@click.option("--model", default="nano", show_default=True, help="Folder whose tokenizer counts.")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
def pack(folder: Path, out: Path, tokens: int, slices: int, family: str, model: str, as_json: bool) -> None:
    """Fill rows of fixed length.

    \b
    handlens data pack shards/receipts --out packed --tokens 4096

    Writes the samples as shards in the order of the rows, and OUT/_rows.jsonl: keys, tokens and slices of each
    row. Samples that are longer than a row, and broken ones, are counted and named.
    """  # noqa: D301
    from handlens.cli.data.convert import need_some, tell
    from handlens.cli.progress import progress_bar
    from handlens.data.check import look
    from handlens.data.convert import Tally, empty_folder
    from handlens.data.formats import read_samples
    from handlens.data.formats.shards import write_shards
    from handlens.data.pack import Budget, Length
    from handlens.data.pack import pack as pack_rows
    from handlens.data.render import open_target
    from handlens.data.samples import Damage, Sample

    target, budget, tally = open_target(model, family), Budget(tokens=tokens, slices=slices), Tally()
    found = read_samples(folder)
    empty_folder(out)
    samples: list[Sample] = []
    lengths: list[Length] = []
    with progress_bar(f"pack {folder.name}", "samples") as advance:
        for item in found:
            tally.read += 1
            advance(tally.read, None)
            if isinstance(item, Damage):
                tally.drop(item.fault.kind, item.where)
                continue
            seen = look(item, target, limit=tokens)
            if seen.rendered is None or seen.faults:
                tally.drop(seen.faults[0].kind if seen.faults else "empty", item.key)
                continue
            if seen.rendered.num_slices > slices:
                tally.drop("too-many-slices", item.key)
                continue
            samples.append(item)
            lengths.append(Length(key=item.key, tokens=len(seen.rendered.ids), slices=seen.rendered.num_slices))
    packing = pack_rows(lengths, budget)
    tally.written = write_shards((samples[place] for row in packing.rows for place in row), out)
    with (out / "_rows.jsonl").open("w", encoding="utf-8") as file:
        for row in packing.rows:
            held = [lengths[place] for place in row]
            line = {
                "keys": [length.key for length in held],
                "tokens": [length.tokens for length in held],
                "slices": [length.slices for length in held],
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    facts = {"out": str(out), "tokens": tokens, "slices": slices} | packing.to_json() | tally.to_json()
    if as_json:
        click.echo(json.dumps(facts, ensure_ascii=False))
    else:
        tell(tally)
        click.echo(f"{len(packing.rows)} rows, {packing.fill:.1%} full", err=True)
        click.echo(out)
    need_some(tally, folder)
