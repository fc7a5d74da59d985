"""Plain folders of pictures: captions in ``NAME.txt`` beside them, or in ``metadata.jsonl`` or ``metadata.csv``.

Boundary: file names are the keys; sub-folders are searched.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from handlens.data.formats.conversations import safe_name, save_picture, unused
from handlens.data.formats.shards import PICTURES, sample_from_json, sample_to_json
from handlens.data.samples import Damage, Encoded, Fault, Found, Sample, talk
from handlens.errors import DataError

METADATA = ("metadata.jsonl", "metadata.csv")
TEXTS = ("text", "caption", "answer")


def pictures_in(path: Path) -> list[Path]:
    """Return the picture files below a folder, by name."""
    if path.is_file():
        return []
    files = (file for file in path.rglob("*") if file.suffix.lower().lstrip(".") in PICTURES[:-1])
    return sorted(file for file in files if file.is_file() and not file.name.startswith("."))


def read_folder(path: Path) -> Iterator[Found]:
    """Yield one sample for each picture and for each row that names no picture."""
    rows: dict[str, dict[str, Any]] = {}
    for name in METADATA:
        if (path / name).is_file():
            for item in _metadata(path / name):
                if isinstance(item, Damage):
                    yield item
                elif item["file_name"] in rows:
                    yield Damage(where=item["file_name"], fault=Fault("duplicate-key", f"stands twice in {name}"))
                else:
                    rows[item["file_name"]] = item
    files = {file.relative_to(path).as_posix(): file for file in pictures_in(path)}
    has_texts = bool(rows) or any(file.with_suffix(".txt").is_file() for file in files.values())
    for name in (*rows, *sorted(files.keys() - rows.keys())):
        # a name that leads out of the folder is a missing picture, whatever lies there
        image = Encoded(name=name, path=files.get(name, path / "missing" / Path(name).name))
        yield _sample(name, image, rows.get(name), has_texts)


def write_folder(samples: Iterable[Sample], out: Path) -> int:
    """Write pictures and ``metadata.jsonl``; return how many samples. A sample has exactly one picture."""
    (out / "images").mkdir(parents=True, exist_ok=True)
    count, used = 0, set[str]()
    partial = out / ".metadata.part"
    with partial.open("w", encoding="utf-8") as file:
        for sample in samples:
            if len(sample.images) != 1:
                raise DataError(
                    f"sample {sample.key} has {len(sample.images)} pictures; a folder holds one each; choose --to llava"
                )
            path = save_picture(sample.images[0], out / "images", unused(safe_name(sample.key), used), 0)
            row = sample_to_json(sample, sample.key)
            row = {"file_name": path, "text": "\n".join(sample.answers)} | row
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    partial.replace(out / "metadata.jsonl")
    return count


def _sample(name: str, image: Encoded, row: dict[str, Any] | None, has_texts: bool) -> Sample:
    if row is not None and ("turns" in row or "messages" in row):
        rest = {key: value for key, value in row.items() if key not in ("file_name", "text")}
        return sample_from_json(rest, (image,), name)
    if row is not None:
        text = next((row[key] for key in TEXTS if isinstance(row.get(key), str)), None)
        if text is None:
            return Sample(key=name, images=(image,), faults=(Fault("misshapen", "its row has no text"),))
        question = row["question"] if isinstance(row.get("question"), str) else ""
        return Sample(key=name, images=(image,), chat=talk([(question, text)]))
    assert image.path is not None
    beside = image.path.with_suffix(".txt")
    if not beside.is_file():
        faults = (Fault("empty", "other pictures of the folder have a text, this one has none"),) if has_texts else ()
        return Sample(key=name, images=(image,), faults=faults)
    try:
        text = beside.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as cause:
        return Sample(key=name, images=(image,), faults=(Fault("misshapen", f"its text is not UTF-8 ({cause})"),))
    return Sample(key=name, images=(image,), chat=talk([("", text)]))


def _metadata(file: Path) -> Iterator[dict[str, Any] | Damage]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as cause:
        yield Damage(where=file.name, fault=Fault("unreadable", f"is not UTF-8 text ({cause})"))
        return
    rows: Iterable[Any]
    if file.suffix == ".csv":
        try:
            rows = list(csv.DictReader(io.StringIO(text)))
        except csv.Error as cause:
            yield Damage(where=file.name, fault=Fault("unreadable", f"is not CSV ({cause})"))
            return
    else:
        rows = [_parsed(line) for line in text.splitlines() if line.strip()]
    for number, row in enumerate(rows, 1):
        if isinstance(row, dict) and isinstance(row.get("file_name"), str):
            yield row
        else:
            yield Damage(where=f"{file.name}:{number}", fault=Fault("misshapen", "is no object with a file_name"))


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
