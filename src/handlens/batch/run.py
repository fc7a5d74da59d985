"""The whole way of a batch: find, leave out what is answered, ask, keep, write.

Boundary: files and numbers; the command line shows them. Content that was answered before with the same settings is not
asked about again, under whatever name it comes; what could not be answered is tried anew by the next run.
"""

import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from handlens.batch.items import Found, find_items, sha256_of_file
from handlens.batch.journal import Journal, Row
from handlens.batch.pool import answer_all
from handlens.batch.rows import format_of, write_rows
from handlens.batch.task import Patience, Request, Task
from handlens.errors import SettingError

WRITE_SECONDS = 10.0
"""The result is written anew so often while the run goes on."""
LOOK_SECONDS = 5.0
"""Temperature and battery are looked at so often."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When the run stops, to be gone on with later."""

    max_celsius: float | None = None
    """Of the hottest sensor."""
    mains_only: bool = False
    """Stop while the battery discharges."""


@dataclass(kw_only=True)
class Progress:
    """How far a run is, and at its end what came of it."""

    found: Found
    num_known: int = 0
    """Answered without asking: in an earlier run, or because another file has the same content."""
    counts: Counter[str] = field(default_factory=Counter)
    """Rows by status: ok, damaged, failed."""
    num_retried: int = 0
    seconds: float = 0.0
    joules: float | None = None
    energy_method: str = ""
    stopped: str = ""
    """Why the run stopped before its end; empty when it did not."""

    @property
    def num_done(self) -> int:
        """Pictures and pages that are accounted for."""
        return sum(self.counts.values())

    @property
    def per_second(self) -> float:
        """Rows of this run per second."""
        return (self.num_done - self.num_known) / self.seconds if self.seconds else 0.0

    @property
    def left_seconds(self) -> float | None:
        """Time left at the rate so far; None before the first row."""
        left = len(self.found.items) - self.num_done
        return left / self.per_second if self.per_second else None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "items": len(self.found.items), "files": self.found.num_files, "ignored_files": self.found.num_ignored,
            "answered": self.counts["ok"], "damaged": self.counts["damaged"], "failed": self.counts["failed"],
            "known": self.num_known, "retried": self.num_retried,
            "left": len(self.found.items) - self.num_done, "stopped": self.stopped or None,
            "seconds": round(self.seconds, 2), "per_second": round(self.per_second, 3),
            "energy": {"method": self.energy_method, "joules": self.joules and round(self.joules, 1)},
        }  # fmt: skip


def run_batch(
    source: str | Path,
    out: Path,
    request: Request,
    *,
    engine: str = "local",
    num_workers: int = 1,
    fresh: bool = False,
    patience: Patience | None = None,
    limits: Limits | None = None,
    tell: Callable[[Progress], None] = lambda _: None,
) -> Progress:
    """Ask about everything that ``source`` holds and write the rows to ``out``, in the order of the files.

    The journal lies beside ``out``, as ``<out>.journal``; ``out`` is replaced every ten seconds and at the end.

    Args:
        source: a folder, a picture, a PDF, or a page such as ``doc.pdf#3``.
        out: its ending decides the form: ``.jsonl``, ``.csv`` or ``.md``.
        request: model, question and settings.
        engine: ``local``, or ``ray`` for the cluster of RAY_ADDRESS.
        num_workers: processes or actors, each with a model of its own.
        fresh: forget the answers of earlier runs.
        patience: when a picture is given up.
        limits: when the run stops.
        tell: called after every row.

    Raises:
        ImageError: ``source`` does not exist or holds no picture.
        ModelError: the model is unknown or cannot be opened.
        SettingError: ``out`` cannot be written, or its journal is of other settings.
    """
    from handlens.batch.cluster import crew_of

    _check_out(out, fresh=fresh)
    settings = _settings(request)
    run = _Run(out, find_items(source), limits)
    with (
        crew_of(engine, num_workers) as crew,
        contextlib.closing(Journal(_journal_of(out), settings, fresh=fresh)) as kept,
    ):
        run.journal = kept
        rows = answer_all(run.unasked(), request, crew, num_workers=num_workers, patience=patience)
        try:
            for row in rows:
                if row is not None:
                    run.keep(row)
                run.tick()
                tell(run.progress)
                if run.progress.stopped:
                    break
        finally:
            rows.close()  # type: ignore[attr-defined]  # a generator
            run.finish()
    tell(run.progress)
    return run.progress


class _Run:
    """The rows of one run, and the clock that decides when they are written and when it stops."""

    journal: Journal

    def __init__(self, out: Path, found: Found, limits: Limits | None) -> None:
        from handlens.measure.energy import find_meter

        self.out, self.items, self.limits = out, found.items, limits or Limits()
        self.meter = find_meter()
        self.progress = Progress(found=found, energy_method=self.meter.method)
        self.keys = {(item.name, item.page): item.key for item in self.items}
        self.begin = self.written = self.measured = time.monotonic()
        self.looked = self.begin - LOOK_SECONDS
        self.write_seconds = 0.0
        self.meter.read(self.begin)

    def unasked(self) -> Iterator[Task]:
        """Yield what has no answer yet; equal content, whatever the name, is asked about once."""
        hashed, sha256 = Path(), ""
        for item in self.items:
            if item.path != hashed:  # the pages of a PDF are neighbours
                hashed, sha256 = item.path, sha256_of_file(item.path)
            row = self.journal.answered.get((sha256, item.page))
            if row is None:
                yield Task(item=item, sha256=sha256)
                continue
            row = row | {"file": item.name}
            if self.journal.rows.get(item.key) != row:
                self.journal.add(item.key, row)
            self.progress.counts["ok"] += 1
            self.progress.num_known += 1

    def keep(self, row: Row) -> None:
        """Take a new row."""
        self.journal.add(self.keys[row["file"], row["page"]], row)
        self.progress.counts[row["status"]] += 1
        self.progress.num_retried += row["attempts"] > 1

    def tick(self) -> None:
        """Measure, look and write where it is time."""
        now, progress = time.monotonic(), self.progress
        progress.seconds = now - self.begin
        if now - self.measured > 1.0:
            self.measured, progress.joules = now, self.meter.read(now)
        if now - self.looked > LOOK_SECONDS:
            self.looked, progress.stopped = now, why_stop(self.limits)
        if now - self.written > max(WRITE_SECONDS, 20 * self.write_seconds):
            self._write()

    def finish(self) -> None:
        """Write what is known, in the order of the items."""
        now = time.monotonic()
        self.progress.seconds, self.progress.joules = now - self.begin, self.meter.read(now)
        self._write()

    def _write(self) -> None:
        begin = time.monotonic()
        rows = self.journal.rows
        write_rows(self.out, (rows[item.key] for item in self.items if item.key in rows))
        self.written = time.monotonic()
        self.write_seconds = self.written - begin


def _check_out(out: Path, *, fresh: bool) -> None:
    format_of(out)
    if not out.resolve().parent.is_dir():
        raise SettingError(f"cannot write {out}: there is no folder {out.resolve().parent}")
    if out.exists() and not _journal_of(out).exists() and not fresh:
        raise SettingError(
            f"{out} exists and no batch wrote it (there is no {_journal_of(out).name}); "
            "give another --out, or --fresh to replace it"
        )


def _journal_of(out: Path) -> Path:
    return out.with_name(out.name + ".journal")


def _settings(request: Request) -> dict[str, Any]:
    """Return what decides an answer; how it is computed does not."""
    from handlens.engine.bundle import MANIFEST
    from handlens.models.store import find_model

    fields = dataclasses.asdict(request)
    names = ("question", "model", "max_slices", "max_tokens", "dpi")
    return {name: fields[name] for name in names} | {"weights": sha256_of_file(find_model(request.model) / MANIFEST)}


def why_stop(limits: Limits) -> str:
    """Return why a run has to stop now; empty when it need not."""
    from handlens.measure import energy

    celsius = energy.temperature_celsius() if limits.max_celsius is not None else None
    if celsius is not None and limits.max_celsius is not None and celsius > limits.max_celsius:
        return f"the machine has {celsius:.0f} °C, above --max-celsius {limits.max_celsius:g}"
    supplies = energy.SUPPLY.glob("*/status") if limits.mains_only else ()
    if any(_first_line(file) == "Discharging" for file in supplies):
        return "the machine runs on its battery (--mains-only)"
    return ""


def _first_line(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
