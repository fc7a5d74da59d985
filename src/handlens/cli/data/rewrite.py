"""``handlens data rewrite``: raw captions become questions and fluent answers."""

import json
import os
from pathlib import Path

import click


@click.command()
@click.argument("folder", metavar="SRC", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the result.")
@click.option(
    "--model", default="rules", show_default=True, help="rules, http://HOST/v1#MODEL, or a model that answers."
)
@click.option("--to", help="Another format.  [default: that of SRC]")
@click.option("--batch", type=click.IntRange(min=1), default=32, show_default=True, help="Captions asked together.")
@click.option("--jobs", type=click.IntRange(min=1), default=8, show_default=True, help="Requests at once.")
@click.option("--cache", type=click.Path(dir_okay=False, path_type=Path), help="[default: OUT/_rewrites.jsonl]")
@click.option("--noise", type=click.FloatRange(0, 1), help="Damage the captions first, as the web does; 0 to 1.")
@click.option("--json", "as_json", is_flag=True, help="Print one object.")
def rewrite(
    folder: Path, out: Path, model: str, to: str | None, batch: int, jobs: int, cache: Path | None,
    noise: float | None, as_json: bool,
) -> None:  # fmt: skip
    """Turn raw captions into questions and answers.

    \b
    handlens data rewrite captions --out rewritten --model http://localhost:8000/v1#qwen
    handlens data rewrite captions --out rewritten --model rules

    An answer that adds or loses a fact is refused, and the raw caption stays. Stop it at any moment: the same
    command goes on, and no caption is asked for twice. A key for the endpoint is read from HANDLENS_API_KEY.
    """  # noqa: D301
    import random
    from dataclasses import replace

    from handlens.cli.progress import progress_bar
    from handlens.data.formats import format_named, format_of
    from handlens.data.noise import make_noisy
    from handlens.data.rewrite import Cache, Rewriting, caption_of, open_rewriter
    from handlens.data.rewrite import rewrite as rewritten_of
    from handlens.data.samples import Sample, samples_only, talk
    from handlens.errors import DataError

    source = format_of(folder)
    writer = format_named(to) if to else source
    if out.is_dir() and any(path.name[0] not in "_." for path in out.iterdir()):
        raise DataError(f"{out} holds a finished data set; choose another --out or empty it")
    rewriter = open_rewriter(model, jobs=jobs, key=os.environ.get("HANDLENS_API_KEY", ""))
    out.mkdir(parents=True, exist_ok=True)
    rewriting = Rewriting()

    def damaged(sample: Sample) -> Sample:
        caption = caption_of(sample)
        if noise is None or not caption:
            return sample
        raw = make_noisy(caption, random.Random(sample.key), level=noise)
        return replace(sample, chat=talk([("", raw)], len(sample.images)))

    with progress_bar(f"rewrite {folder.name}", "captions") as advance:

        def counted():  # type: ignore[no-untyped-def]
            given = (damaged(sample) for sample in samples_only(source.read(folder)))
            for sample in rewritten_of(
                given, rewriter, Cache(cache or out / "_rewrites.jsonl"), rewriting, batch=batch
            ):
                advance(rewriting.read, None)
                yield sample

        # pictures and rows become whole files at the end; until then the cache alone is what was paid for
        partial = out / "_partial"
        _empty(partial)
        writer.write(counted(), partial)
    for path in sorted(partial.iterdir()):
        path.replace(out / path.name)
    partial.rmdir()
    facts = {"out": str(out), "model": model} | rewriting.to_json()
    if as_json:
        click.echo(json.dumps(facts, ensure_ascii=False))
    else:
        kept = ", ".join(f"{count} {reason}" for reason, count in rewriting.kept_raw.items()) or "none"
        click.echo(f"{rewriting.rewritten} of {rewriting.read} rewritten; kept as they were: {kept}", err=True)
        click.echo(out)


def _empty(folder: Path) -> None:
    import shutil

    if folder.exists():
        shutil.rmtree(folder)
