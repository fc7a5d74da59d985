"""Parquet files: our own columns, and those of the common picture-text sets on the Hugging Face hub.

Boundary: pyarrow, imported when a file is opened. Pictures are bytes in a column or paths beside the file.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from handlens.data.formats.conversations import read_messages
from handlens.data.samples import Damage, Encoded, Fault, Found, Sample, marked_text, parse_turns, talk
from handlens.errors import NeedsExtra

PER_FILE = 5000
BATCH = 64
CAPTIONS = ("caption", "text", "TEXT", "answer", "alt_text")
"""Columns that hold what is said of the picture where there is no conversation; the first one wins."""
PLAIN = ("language", "licence", "source", "kind", "split")

Row = dict[str, Any]


def arrow() -> tuple[Any, Any]:
    """Return pyarrow and its parquet module.

    Raises:
        NeedsExtra: pyarrow is missing.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise NeedsExtra("parquet (pyarrow)", "data") from None
    return pyarrow, pyarrow.parquet


def parquet_files(path: Path) -> list[Path]:
    """Return the parquet files of a folder, without the manifest of shards."""
    if path.is_file():
        return [path] if path.suffix == ".parquet" else []
    return sorted(file for file in path.glob("*.parquet") if file.name != "manifest.parquet" and file.name[0] != ".")


def read_parquet(path: Path) -> Iterator[Found]:
    """Yield the rows of all files as samples."""
    _, parquet = arrow()
    for file in parquet_files(path):
        number = 0
        try:
            for batch in parquet.ParquetFile(file).iter_batches(batch_size=BATCH):
                for row in batch.to_pylist():
                    yield _sample(row, f"{file.name}#{number}", file.parent)
                    number += 1
        except Exception as cause:  # pyarrow raises ArrowInvalid, OSError, UnicodeDecodeError, MemoryError ...
            detail = f"is damaged after {number} rows ({str(cause).splitlines()[0]:.100})"
            yield Damage(where=file.name, fault=Fault("unreadable", detail))


def write_parquet(samples: Iterable[Sample], out: Path, *, per_file: int = PER_FILE) -> int:
    """Write ``NNNNNN.parquet`` with the pictures inside; return how many samples."""
    pyarrow, parquet = arrow()
    out.mkdir(parents=True, exist_ok=True)
    text = pyarrow.string()
    schema = pyarrow.schema(
        [("id", text)]
        + [(name, text) for name in PLAIN]
        + [
            ("images", pyarrow.list_(pyarrow.struct([("bytes", pyarrow.binary()), ("path", text)]))),
            ("messages", pyarrow.list_(pyarrow.struct([("role", text), ("content", text)]))),
            ("truth", text),
        ]
    )
    count = 0
    partial = out / ".rows.part"
    writer: Any = None
    rows: list[Row] = []

    def flush() -> None:
        if rows:
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
            rows.clear()

    for sample in samples:
        if count % per_file == 0:
            if writer is not None:
                flush()
                writer.close()
                partial.replace(out / f"{count // per_file - 1:06d}.parquet")
            writer = parquet.ParquetWriter(partial, schema)
        rows.append(_row(sample))
        count += 1
        if len(rows) >= BATCH:
            flush()
    if writer is not None:
        flush()
        writer.close()
        partial.replace(out / f"{(count - 1) // per_file:06d}.parquet")
    return count


def _row(sample: Sample) -> Row:
    return {
        "id": sample.key,
        **{name: getattr(sample, name) for name in PLAIN},
        "images": [{"bytes": image.read(), "path": Path(image.name).name} for image in sample.images],
        "messages": [{"role": turn.role, "content": marked_text(turn)} for turn in sample.chat],
        "truth": json.dumps(sample.truth, ensure_ascii=False, sort_keys=True) if sample.truth else "",
    }


def _sample(row: Row, place: str, folder: Path) -> Sample:
    faults: list[Fault] = []
    images = _images(row, place, folder, faults)
    written = row.get("messages", row.get("conversations"))
    if isinstance(written, list):
        chat, wrong = parse_turns(read_messages(written, "minicpm-v", faults), len(images))
        faults += wrong
    elif isinstance(row.get("texts"), list):  # the layout of the Cauldron
        pairs = [(turn.get("user"), turn.get("assistant")) for turn in row["texts"] if isinstance(turn, dict)]
        good = [(q, a) for q, a in pairs if isinstance(q, str) and isinstance(a, str)]
        if len(good) < len(row["texts"]):
            faults.append(Fault("misshapen", f"{len(row['texts']) - len(good)} turns lack user or assistant"))
        chat = talk(good, len(images))
    else:
        caption = next((row[name] for name in CAPTIONS if isinstance(row.get(name), str)), None)
        question = row["question"] if isinstance(row.get("question"), str) else ""
        if caption is None:
            faults.append(Fault("misshapen", f"columns are {sorted(row)[:8]}; none is a conversation or a caption"))
        chat = () if caption is None else talk([(question, caption)], len(images))
    truth: Any = {}
    if row.get("truth"):
        try:
            truth = json.loads(row["truth"])
        except (ValueError, TypeError, RecursionError):
            truth = None
    if not isinstance(truth, dict):
        faults.append(Fault("misshapen", "truth is not a JSON object"))
        truth = {}
    key = next((row[name] for name in ("id", "key") if isinstance(row.get(name), str | int)), place)
    return Sample(
        key=str(key), images=images, chat=chat, truth=truth, faults=tuple(faults),
        **{name: row[name] for name in PLAIN if isinstance(row.get(name), str)},
    )  # fmt: skip


def _images(row: Row, place: str, folder: Path, faults: list[Fault]) -> tuple[Encoded, ...]:
    value = row.get("images", row.get("image"))
    images = []
    for number, item in enumerate(value if isinstance(value, list) else [] if value is None else [value]):
        name = f"{place}.{number}"
        data = item.get("bytes") if isinstance(item, dict) else item
        path = item.get("path") if isinstance(item, dict) else item
        if isinstance(data, bytes):
            images.append(Encoded(name=path if isinstance(item, dict) and isinstance(path, str) else name, data=data))
        elif isinstance(path, str) and path:
            images.append(Encoded(name=path, path=folder / path))
        else:
            faults.append(Fault("missing-image", f"picture {number} has neither bytes nor a path"))
    return tuple(images)
