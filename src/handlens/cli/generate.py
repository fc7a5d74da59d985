"""``handlens generate``: pictures with everything that is true of them, as shards."""

import json
from pathlib import Path

import click


@click.command()
@click.argument("kind")
@click.option("--count", type=click.IntRange(min=1), default=1000, show_default=True, help="How many pictures.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same bytes.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the shards.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes, each for whole shards of 1,000.",
)
@click.option("--split", default="train", show_default=True, help="heldout: words, fonts, layouts never trained on.")
@click.option("--level", type=click.FloatRange(0, 1), default=1.0, show_default=True, help="0 clean, 1 hard.")
@click.option("--language", "languages", multiple=True, help="Code such as de; repeatable, or all.  [default: en]")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
def generate(
    kind: str,
    count: int,
    seed: int,
    out: Path,
    jobs: int,
    split: str,
    level: float,
    languages: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write generated pictures with questions and answers.

    \b
    handlens generate receipts --count 1000 --seed 1 --out shards/receipts

    KIND is lines, pages, receipts, labels, invoices, forms, letters, tables, charts, formulas, screens,
    scenes, cards, maps, or mixed for all of them. Needs the extra 'data'; scripts beside Latin, Cyrillic,
    Armenian and Georgian need the extra 'languages' too. Several languages take turns.
    """  # noqa: D301
    from handlens.cli.progress import progress_bar
    from handlens.data.generate import KINDS, LANGUAGES, SPLITS, languages_of
    from handlens.data.shards import write_shards
    from handlens.errors import SettingError, did_you_mean

    wanted = [("kind", kind, KINDS), ("split", split, SPLITS)]
    wanted += [("language", code, LANGUAGES) for code in languages if code != "all"]
    for what, value, known in wanted:
        if value not in known:
            raise SettingError(f"unknown {what} '{value}'{did_you_mean(value, known)}")
    codes = languages_of(kind) if "all" in languages else languages or ("en",)
    with progress_bar(f"generate {kind}", "pictures") as advance:
        advance(0, count)
        manifest = write_shards(kind, count, seed, out, jobs, split, level=level, languages=codes, progress=advance)
    facts = {
        "kind": kind, "count": count, "seed": seed, "split": split, "languages": list(codes), "manifest": str(manifest),
    }  # fmt: skip
    click.echo(json.dumps(facts) if as_json else manifest)
