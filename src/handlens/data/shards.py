"""Write and read WebDataset shards: DIR/NNNNNN.tar of pictures and JSON, and a manifest.

Boundary: files only; what a record means is in ``records``. Needs pyarrow for the manifest.
"""

import hashlib
import io
import itertools
import json
import os
import signal
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from PIL import Image

from handlens.data.records import Glyph, Line, Record, Thing, Turn
from handlens.errors import DataError, NeedsExtra

PER_SHARD = 1000
"""Records per tar; about 50 MB."""

Row = dict[str, Any]
Progress = Callable[[int, int], None]
Report = Callable[[int], None]
Span = tuple[int, int, int]
"""Number of a shard, first record, record after the last."""
Work = Callable[..., list[Row]]


def write_shards(
    kind: str,
    count: int,
    seed: int,
    out: Path | str,
    jobs: int = 1,
    split: str = "train",
    *,
    level: float = 1.0,
    languages: Sequence[str] = ("en",),
    per_shard: int = PER_SHARD,
    progress: Progress | None = None,
) -> Path:
    """Generate ``count`` records into shards and return the path of the manifest.

    Pictures take the ``languages`` in turn. The bytes do not depend on ``jobs``. A shard or manifest
    appears under its name only when it is whole, and replaces the one before it. ``progress`` is
    called with records done and records wanted.

    Raises:
        DataError: a count, a shard size or a number of jobs below 1, or a folder with shards
            that this run would leave beside its own.
        NeedsExtra: pyarrow is missing.
    """
    for name, value in (("count", count), ("jobs", jobs), ("per_shard", per_shard)):
        if value < 1:
            raise DataError(f"{name} is {value}; needed is 1 or more")
    write_manifest = _manifest_writer()
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, count, per_shard)
    spans = [(number, start, min(start + per_shard, count)) for number, start in enumerate(starts)]
    strange = {path.name for path in folder.glob("*.tar")} - {_shard_name(span[0]) for span in spans}
    if strange:
        raise DataError(
            f"{folder} holds {len(strange)} shards of a larger run ({min(strange)} ...); choose an empty folder"
        )

    def report(num_made: int) -> None:
        if progress is not None:
            progress(num_made, count)

    work = partial(_write_shard, folder, kind, seed, split, level, tuple(languages))
    workers = min(jobs, len(spans))
    rows = _in_parallel(work, spans, workers, report) if workers > 1 else _in_turn(work, spans, report)
    manifest = folder / "manifest.parquet"
    write_manifest(rows, manifest)
    return manifest


def read_shards(folder: Path | str) -> Iterator[Record]:
    """Yield every record of a folder of shards, in order.

    Raises:
        DataError: no shard there, or one that is damaged or misshapen.
    """
    shards = sorted(Path(folder).glob("[0-9]*.tar"))
    if not shards:
        raise DataError(f"no shards (NNNNNN.tar) in {folder}; write some: handlens generate")
    for shard in shards:
        try:
            yield from _read_shard(shard)
        except (tarfile.TarError, OSError, KeyError, TypeError, ValueError, EOFError) as error:
            raise DataError(f"{shard} is damaged ({error}); generate it again") from error


def record_to_json(record: Record) -> Row:
    """Return everything but the picture, as plain JSON; boxes are rounded to 0.01 px."""
    row = {
        name: getattr(record, name)
        for name in ("key", "kind", "split", "language", "seed", "licence", "source", "facts")
    }
    row["turns"] = [asdict(turn) for turn in record.turns]
    row["things"] = [asdict(thing) | {"box": _short(thing.box)} for thing in record.things]
    row["table"] = None if record.table is None else [list(cells) for cells in record.table]
    row["lines"] = [
        {"text": ln.text, "box": _short(ln.box), "glyphs": [_short(g.box) for g in ln.glyphs]} for ln in record.lines
    ]
    return row


def record_from_json(row: Row, picture: Image.Image) -> Record:
    """Return the record that ``record_to_json`` wrote."""
    lines = tuple(
        Line(
            text=ln["text"],
            box=tuple(ln["box"]),
            glyphs=tuple(Glyph(char=char, box=tuple(box)) for char, box in zip(ln["text"], ln["glyphs"], strict=True)),
        )
        for ln in row["lines"]
    )
    table = row["table"]
    rest = ("key", "kind", "split", "language", "seed", "licence", "source", "facts")
    return Record(
        picture=picture,
        lines=lines,
        things=tuple(Thing(**thing | {"box": tuple(thing["box"])}) for thing in row["things"]),
        table=None if table is None else tuple(tuple(cells) for cells in table),
        turns=tuple(Turn(**turn) for turn in row["turns"]),
        **{name: row[name] for name in rest},
    )


def _short(box: tuple[float, ...]) -> list[float]:
    return [round(float(value), 2) for value in box]


def _in_turn(work: Work, spans: Sequence[Span], report: Report) -> list[Row]:
    """Write the shards one after the other; every record is reported."""
    num_made = itertools.count(1)
    return [row for span in spans for row in work(span, lambda: report(next(num_made)))]


def _in_parallel(work: Work, spans: Sequence[Span], workers: int, report: Report) -> list[Row]:
    """Write the shards in processes; what they made together is reported a few times a second."""
    # spawned workers start clean: no threads or locks of the caller come along
    context = get_context("spawn")
    made = context.Value("q", 0)
    pool = ProcessPoolExecutor(workers, context, _remember, (made,))
    try:
        futures = [pool.submit(work, span) for span in spans]
        waiting = set(futures)
        while waiting:
            done, waiting = wait(waiting, timeout=0.2)
            for future in done:
                future.result()  # raises what the worker raised
            report(made.value)
        return [row for future in futures for row in future.result()]
    except BaseException:
        made.value = _STOP  # shards that are begun end at their next record, the others are not begun
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_STOP = -1
_made: Any = None
"""In a worker: the count of records that all workers share, or ``_STOP``."""


class _Stopped(Exception):
    """Another shard failed or the user pressed Ctrl-C."""


def _remember(made: Any) -> None:
    global _made
    _made = made
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller decides what Ctrl-C means


def _count_one() -> None:
    with _made.get_lock():
        if _made.value == _STOP:
            raise _Stopped
        _made.value += 1


def _shard_name(number: int) -> str:
    return f"{number:06d}.tar"


def _write_shard(
    folder: Path,
    kind: str,
    seed: int,
    split: str,
    level: float,
    languages: tuple[str, ...],
    span: Span,
    tick: Callable[[], None] = _count_one,
) -> list[Row]:
    from handlens.data.generate import generate

    number, start, end = span
    name = _shard_name(number)
    whole, partial_name = folder / name, folder / f".{name}.{os.getpid()}.part"
    rows = []
    try:
        with tarfile.open(partial_name, "w", format=tarfile.USTAR_FORMAT) as tar:
            for index in range(start, end):
                record = generate(kind, seed, index, split=split, level=level, languages=languages)
                rows.append(_add(tar, record) | {"shard": name})
                tick()
        partial_name.replace(whole)
    finally:
        partial_name.unlink(missing_ok=True)
    return rows


def _add(tar: tarfile.TarFile, record: Record) -> Row:
    """Append one record and return its row of the manifest."""
    buffer = io.BytesIO()
    record.picture.save(buffer, "PNG", compress_level=1)  # for these pictures faster and smaller than 4
    png = buffer.getvalue()
    text = json.dumps(record_to_json(record), ensure_ascii=False, sort_keys=True).encode()
    for ending, data in (("json", text), ("png", png)):
        entry = tarfile.TarInfo(f"{record.key}.{ending}")  # mtime, uid and gid stay 0
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    width, height = record.picture.size
    return {
        "key": record.key, "kind": record.kind, "split": record.split,
        "language": record.language, "width_px": width, "height_px": height,
        "num_turns": len(record.turns), "tasks": sorted({turn.task for turn in record.turns}),
        "sha256": hashlib.sha256(png + text).hexdigest(), "seed": record.seed,
        "licence": record.licence, "source": record.source,
    }  # fmt: skip


def _read_shard(shard: Path) -> Iterator[Record]:
    with tarfile.open(shard) as tar:
        row: Row | None = None
        for entry in tar:
            file = tar.extractfile(entry)
            if file is None:
                raise DataError(f"{shard} holds {entry.name}, which is not a file")
            data = file.read()
            if entry.name.endswith(".json"):
                row = json.loads(data)
            elif row is None or entry.name.rsplit(".", 1)[0] != row["key"]:
                raise DataError(f"{shard}: {entry.name} has no JSON before it")
            else:
                yield record_from_json(row, Image.open(io.BytesIO(data)).convert("RGB"))


def _manifest_writer() -> Callable[[list[Row], Path], None]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise NeedsExtra("the manifest (pyarrow)", "data") from None

    def write(rows: list[Row], path: Path) -> None:
        partial_path = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), partial_path)
            partial_path.replace(path)
        finally:
            partial_path.unlink(missing_ok=True)

    return write
