"""``handlens batch``: one question about every picture and page of a folder."""

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from handlens.core.images import MAX_PIXELS

if TYPE_CHECKING:
    from handlens.batch.run import Progress

PLAIN_SECONDS = 15.0
"""Where no person watches, a line of progress is printed so often."""


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("question")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help=".jsonl, .csv or .md")
@click.option("--model", default="nano", show_default=True, help="nano, or the folder of a bundle or torch model.")
@click.option("--jobs", "-j", "--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="Workers.")
@click.option("--engine", default="local", show_default=True, help="local, or ray for the cluster of RAY_ADDRESS.")
@click.option("--fresh", is_flag=True, help="Forget the answers of earlier runs.")
@click.option("--max-slices", type=click.IntRange(min=1), help="Most slices of a picture.  [default: the model's]")
@click.option("--max-tokens", type=click.IntRange(min=1), default=256, show_default=True, help="Longest answer.")
@click.option("--dpi", type=click.IntRange(1, 1200), default=150, show_default=True, help="Of drawn pages.")
@click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    default=MAX_PIXELS,
    show_default=True,
    help="Largest picture that is opened.",
)
@click.option("--retries", type=click.IntRange(min=0), default=2, show_default=True, help="After a crash or a stop.")
@click.option("--timeout", type=click.FloatRange(min=1), default=600.0, show_default=True, help="Seconds a picture.")
@click.option("--max-celsius", type=float, help="Stop when the machine is hotter; run again to go on.")
@click.option("--mains-only", is_flag=True, help="Stop when the machine runs on its battery; run again to go on.")
@click.option("--no-cache", is_flag=True, help="Keep no visual tokens on disk (also: HANDLENS_NO_CACHE=1).")
@click.option("--no-profile", is_flag=True, help="Ignore what `handlens tune` found (also: HANDLENS_NO_PROFILE=1).")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as one object.")
def batch(
    path: Path,
    question: str,
    out: Path,
    model: str,
    jobs: int,
    engine: str,
    fresh: bool,
    max_slices: int | None,
    max_tokens: int,
    dpi: int,
    max_pixels: int,
    retries: int,
    timeout: float,
    max_celsius: float | None,
    mains_only: bool,
    no_cache: bool,
    no_profile: bool,
    as_json: bool,
) -> int:
    """Ask one question about every picture and page of a folder.

    \b
    handlens batch examples "What is shown?" --out answers.jsonl
    handlens batch scans "What is the total?" --out totals.csv --jobs 4
    handlens batch contract.pdf "Who signs?" --out contract.md

    PATH is a folder, a picture or a PDF; every page of a PDF is a row. A run that was stopped goes on when it is
    started again, and asks what has no answer yet. Damaged files get a row with an error. The exit code is 1 when
    nothing could be answered, something failed that another run may answer, or the run stopped before its end.
    """  # noqa: D301
    from handlens.batch.run import Limits, run_batch
    from handlens.batch.task import Patience, Request
    from handlens.cli.progress import progress_bar

    if not question.strip():
        raise click.UsageError('the question is empty; for example: handlens batch scans "What is the total?"')
    request = Request(
        model=model, question=question, max_slices=max_slices, max_tokens=max_tokens, dpi=dpi, max_pixels=max_pixels,
        cache=not no_cache, profile=not no_profile, threads=_threads_each(jobs),
    )  # fmt: skip
    if notice := _notice(model):
        click.echo(f"{model}: {notice}", err=True)
    last, reached = time.monotonic(), 0
    with progress_bar("batch", "pictures") as advance:

        def tell(progress: "Progress") -> None:
            nonlocal last, reached
            reached = progress.num_done
            advance(progress.num_done, len(progress.found.items), note=_note(progress))
            if not sys.stderr.isatty() and time.monotonic() - last > PLAIN_SECONDS:
                last = time.monotonic()
                click.echo(_plain_line(progress), err=True)

        try:
            done = run_batch(
                path, out, request, engine=engine, num_workers=jobs, fresh=fresh,
                patience=Patience(retries=retries, limit_seconds=timeout),
                limits=Limits(max_celsius=max_celsius, mains_only=mains_only), tell=tell,
            )  # fmt: skip
        except KeyboardInterrupt:
            click.echo(f"interrupted: {reached} rows are kept in {out}.journal; run it again to go on", err=True)
            raise
    if as_json:
        click.echo(json.dumps({"out": str(out), **done.to_json()}, ensure_ascii=False))
    for line in _summary(done, out):
        click.echo(line, err=True)
    return 0 if done.counts["ok"] and not done.counts["failed"] and not done.stopped else 1


def _threads_each(jobs: int) -> int | None:
    """Share the free cores; one worker finds them itself."""
    from handlens.engine.cores import count_free_cores

    return None if jobs == 1 else max(1, count_free_cores() // jobs)


def _note(progress: "Progress") -> str:
    bad = progress.counts["damaged"] + progress.counts["failed"]
    energy = f"{progress.joules / 3600:.2f} Wh" if progress.joules else ""
    return ", ".join(part for part in (f"{bad} without an answer" if bad else "", energy) if part)


def _plain_line(progress: "Progress") -> str:
    left = progress.left_seconds
    time_left = "" if left is None else f", {_span(left)} left"
    note = _note(progress)
    return (
        f"{progress.num_done} of {len(progress.found.items)}, {progress.per_second:.3g}/s{time_left}"
        f"{', ' if note else ''}{note}"
    )


def _summary(done: "Progress", out: Path) -> list[str]:
    """Return the last lines; the very last accounts for every picture and page."""
    counts, num_items, lines = done.counts, len(done.found.items), []
    if done.found.closed:
        lines.append(f"{len(done.found.closed)} folders may not be read, the first is {done.found.closed[0]}")
    if counts["damaged"] + counts["failed"]:
        lines.append("the field 'error' says why" + ("; run it again to try what failed" if counts["failed"] else ""))
    if done.stopped:
        lines.append(f"stopped: {done.stopped}; {num_items - done.num_done} left, run it again to go on")
    known = f" ({done.num_known} of them known before)" if done.num_known else ""
    files = "1 file" if done.found.num_files == 1 else f"{done.found.num_files} files"
    lines.append(
        f"{num_items} pictures and pages of {files}: {counts['ok']} answered{known}, "
        f"{counts['damaged']} damaged, {counts['failed']} failed; {_span(done.seconds)}, {done.per_second:.3g}/s; "
        f"wrote {out}"
    )
    return lines


def _notice(model: str) -> str:
    """Return what the maker of a bundle wants said with every answer."""
    from handlens.engine.bundle import MANIFEST, Bundle
    from handlens.models.store import find_model

    folder = find_model(model)
    return Bundle.open(folder, verify=False).info.notice if (folder / MANIFEST).is_file() else ""


def _span(seconds: float) -> str:
    """Return a length of time as a person says it.

    >>> _span(42.4), _span(125), _span(7380)
    ('42 s', '2 min 5 s', '2 h 3 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
