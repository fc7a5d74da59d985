"""``handlens data clean``: a data set without what does no good."""

import json
from pathlib import Path

import click


@click.command()
@click.argument("folder", metavar="SRC", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="An empty folder.")
@click.option("--to", help="Another format.  [default: that of SRC]")
@click.option("--min-side", type=click.IntRange(min=1), default=16, show_default=True, help="Shortest side in px.")
@click.option(
    "--max-aspect", type=click.FloatRange(min=1), default=30.0, show_default=True, help="Long side over short."
)
@click.option(
    "--min-chars", type=click.IntRange(min=0), default=1, show_default=True, help="Fewest letters of the answers."
)
@click.option("--max-chars", type=click.IntRange(min=1), default=20_000, show_default=True, help="Most letters.")
@click.option("--languages", default="", help="Tags that are kept, with commas.  [default: all]")
@click.option("--no-repair", is_flag=True, help="Leave broken text as it is.")
@click.option("--exact-only", is_flag=True, help="Leave out only exact duplicates, not near ones.")
@click.option(
    "--scorer", metavar="MODEL", help="Model that tells how much a picture adds to its words; nano or a folder."
)
@click.option("--min-correlation", type=float, help="Fewest nats a letter; needs --scorer.")
@click.option(
    "--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="Where it runs."
)
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Workers.")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
def clean(
    folder: Path, out: Path, to: str | None, min_side: int, max_aspect: float, min_chars: int, max_chars: int,
    languages: str, no_repair: bool, exact_only: bool, scorer: str | None, min_correlation: float | None,
    engine: str, jobs: int, as_json: bool,
) -> None:  # fmt: skip
    """Leave out what does no good.

    \b
    handlens data clean raw --out cleaned
    handlens data clean raw --out cleaned --languages en,de --scorer nano --min-correlation 0.0

    Filters by size, shape, length and language, repairs text, and leaves out duplicates and pairs whose picture
    adds nothing. Each dropped sample stands with its reason in OUT/_dropped.jsonl; the counts in OUT/_clean.json.
    """  # noqa: D301
    import handlens
    from handlens.cli.data.convert import need_some, tell
    from handlens.cli.progress import progress_bar
    from handlens.data.clean import Cleaning, LikelihoodRatio, Rules
    from handlens.data.clean import clean as kept_of
    from handlens.data.convert import empty_folder
    from handlens.data.formats import format_named, format_of
    from handlens.data.spread import spread_over

    if min_correlation is not None and scorer is None:
        raise click.UsageError("--min-correlation needs --scorer; for example: --scorer nano")
    if scorer is not None and (engine != "local" or jobs > 1):
        raise click.UsageError("--scorer holds one model and runs in one process; leave out --engine and --jobs")
    source = format_of(folder)
    writer = format_named(to) if to else source
    rules = Rules(
        min_side_px=min_side, max_aspect=max_aspect, min_chars=min_chars, max_chars=max_chars,
        languages=tuple(tag.strip() for tag in languages.split(",") if tag.strip()),
        min_correlation=min_correlation, num_images=writer.num_images, repairs=not no_repair, finds_near=not exact_only,
    )  # fmt: skip
    empty_folder(out)
    cleaning = Cleaning()
    judge = LikelihoodRatio(answerer=handlens.load(scorer, keep=True)) if scorer else None
    with (
        (out / "_dropped.jsonl").open("w", encoding="utf-8") as file,
        progress_bar(f"clean {folder.name}", "samples") as advance,
        spread_over(engine, jobs) as spread,
    ):

        def dropped(key: str, reason: str) -> None:
            file.write(json.dumps({"sample": key, "reason": reason}, ensure_ascii=False) + "\n")
            advance(cleaning.tally.read, None)

        kept = kept_of(source.read(folder), rules, cleaning, scorer=judge, spread=spread, dropped=dropped)
        writer.write(kept, out)
    facts = {"out": str(out)} | cleaning.to_json()
    (out / "_clean.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if as_json:
        click.echo(json.dumps(facts, ensure_ascii=False))
    else:
        tell(cleaning.tally)
        click.echo(f"{cleaning.repaired} texts repaired", err=True)
        click.echo(out)
    need_some(cleaning.tally, folder)
