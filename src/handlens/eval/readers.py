"""Read benchmark files that lie on the user's disk: VLMEvalKit TSV, Hugging Face parquet, official JSON.

Boundary: files in, rows with one set of column names out; pictures stay encoded until they are asked for. Nothing is
downloaded. Parquet needs pyarrow, imported when such a file is read.
"""

import ast
import base64
import binascii
import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from handlens.core.images import Picture, open_picture
from handlens.errors import DataError, ImageError, NeedsExtra
from handlens.eval.task import Encoded, Item, PictureSource, Task

ENDINGS = (".tsv", ".csv", ".jsonl", ".json", ".parquet")
LETTERS = "ABCDEFGHIJ"
SHORTEST_PICTURE = 64
"""Base64 text of fewer characters is the index of another row whose picture is meant (VLMEvalKit)."""
IDS = ("index", "question_id", "questionId", "id", "pid", "data_id", "qid", "image_id")
QUESTIONS = ("question", "query", "text", "Question")
ANSWERS = ("answers", "answer", "gt_answer", "label", "ground_truth", "Answer")
CATEGORIES = ("category", "question_type", "capability", "type", "l2-category")
PICTURES = (
    "image", "images", "image_path", "image_src", "imagename", "image_name", "filename", "file_name", "decoded_image",
    "image_id",
)  # fmt: skip

Row = dict[str, Any]


def find_data(folder: Path | None, task: str, names: Sequence[str]) -> tuple[Path, ...]:
    """Return the file of a benchmark, or the parquet files of its folder.

    ``folder`` may be the file itself. Case does not matter.

    Raises:
        DataError: there is none; the line lists what would be read.
    """
    wanted = f"{names[0]}.tsv, .json, .jsonl or .parquet, or a folder {names[0]}/ of parquet files"
    if folder is None:
        raise DataError(
            f"{task} needs its data, which cannot be fetched; name the folder with --data; needed is {wanted}"
        )
    if folder.is_file():
        return (folder,)
    if not folder.is_dir():
        raise DataError(f"the data folder {folder} does not exist; {task} needs {wanted} in it")
    there = {entry.name.lower(): entry for entry in sorted(folder.iterdir())}
    for name in names:
        for ending in ENDINGS:
            if f"{name}{ending}".lower() in there:
                return (there[f"{name}{ending}".lower()],)
        inside = there.get(name.lower())
        if inside is not None and inside.is_dir():
            files = [file for ending in (".parquet", ".jsonl", ".json", ".tsv") for file in inside.rglob(f"*{ending}")]
            same = [file for file in sorted(files) if file.suffix == files[0].suffix] if files else []
            if same:
                return tuple(same)
    raise DataError(
        f"no data of {task} in {folder}; needed is {wanted} (also: {', '.join(names[1:]) or 'no other name'})"
    )


def read_rows(files: Sequence[Path]) -> Iterator[Row]:
    """Yield rows of one format; references between rows of a TSV are followed.

    Raises:
        DataError: a file is damaged or of no known format.
        NeedsExtra: parquet without pyarrow.
    """
    for file in files:
        readers = {".tsv": _read_table, ".csv": _read_table, ".json": _read_json, ".jsonl": _read_lines,
                   ".parquet": _read_parquet}  # fmt: skip
        if file.suffix.lower() not in readers:
            raise DataError(f"{file} is no benchmark file; needed is one of {', '.join(ENDINGS)}")
        try:
            yield from readers[file.suffix.lower()](file)
        except (UnicodeDecodeError, csv.Error, ValueError) as cause:
            raise DataError(f"{file} is damaged: {' '.join(str(cause).split())[:200]}; copy it again") from None


def _read_table(file: Path) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)
    with file.open(encoding="utf-8", newline="") as stream:
        mark = "\t" if file.suffix.lower() == ".tsv" else ","
        rows = [{key: value for key, value in row.items() if value not in ("", None)}
                for row in csv.DictReader(stream, delimiter=mark)]  # fmt: skip
    if rows and not any(name in row for row in rows for name in QUESTIONS):
        raise DataError(f"{file} has no column 'question'; its columns are {', '.join(rows[0])[:200]}")
    pictures = {
        str(row.get("index")): row["image"] for row in rows if len(str(row.get("image", ""))) > SHORTEST_PICTURE
    }
    for row in rows:
        reference = str(row.get("image", ""))
        if reference and len(reference) <= SHORTEST_PICTURE and reference in pictures:
            row["image"] = pictures[reference]
        yield row


def _read_json(file: Path) -> Iterator[Row]:
    whole = json.loads(file.read_text(encoding="utf-8"))
    if isinstance(whole, dict):
        lists = [
            whole[name] for name in ("data", "questions", "annotations", "items") if isinstance(whole.get(name), list)
        ]
        if lists:
            whole = lists[0]
        elif all(isinstance(value, dict) for value in whole.values()):
            whole = [{"id": key, **value} for key, value in whole.items()]
    if not isinstance(whole, list) or not all(isinstance(row, dict) for row in whole):
        raise DataError(f"{file} holds no list of questions; needed is a list of objects, or an object with 'data'")
    yield from whole


def _read_lines(file: Path) -> Iterator[Row]:
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            row = json.loads(line)
            if not isinstance(row, dict):
                raise DataError(f"{file} line {number} is no object")
            yield row


def _read_parquet(file: Path) -> Iterator[Row]:
    try:
        import pyarrow.parquet as parquet
    except ModuleNotFoundError:
        raise NeedsExtra(f"reading {file.name} (parquet)", "eval") from None
    with parquet.ParquetFile(file) as table:
        for batch in table.iter_batches(batch_size=64):
            yield from batch.to_pylist()


def first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    """Return the first of the named columns that is there, or None."""
    return next((row[name] for name in names if row.get(name) is not None), None)


def as_list(value: Any) -> list[Any]:
    """Return a list: as it is, or read from its Python or JSON text, or with the one value.

    >>> as_list("['a', 'b']"), as_list("[sic"), as_list(3)
    (['a', 'b'], ['[sic'], [3])
    """
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, str) and value.strip()[:1] == "[":
        try:
            read = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return [value]
        return list(read) if isinstance(read, list | tuple) else [value]
    return [] if value is None else [value]


def options_of(row: Mapping[str, Any]) -> dict[str, str]:
    """Return letter -> text, from columns A, B, ..., a list, or choice_a, choice_b, ..."""
    found = {letter: str(row[letter]) for letter in LETTERS if row.get(letter) is not None}
    if not found:
        found = {
            letter: str(row[f"choice_{letter.lower()}"])
            for letter in LETTERS if row.get(f"choice_{letter.lower()}") is not None
        }  # fmt: skip
    listed = as_list(first(row, ("options", "choices")))
    return found or dict(zip(LETTERS, map(str, listed), strict=False))


def pictures_of(row: Mapping[str, Any], folder: Path) -> tuple[PictureSource, ...]:
    """Return the pictures of a row, still encoded; a path is searched in the folder and its ``images`` folders."""
    numbered = [row[name] for place in range(1, 8) if (name := f"image_{place}") in row and row[name] is not None]
    values = numbered or as_list(first(row, PICTURES))
    return tuple(_source(value, folder) for value in values)


def _source(value: Any, folder: Path) -> PictureSource:
    if isinstance(value, Mapping):
        if value.get("bytes"):
            return bytes(value["bytes"])
        value = value.get("path") or ""
    if isinstance(value, bytes):
        return value
    text = str(value)
    if len(text) > SHORTEST_PICTURE and not Path(text[:250]).suffix and "\\" not in text:
        return Encoded(text.partition("base64,")[2] or text)
    return _find_picture(text, folder)


def _find_picture(name: str, folder: Path) -> Path:
    """Return where a picture lies, or where it was looked for first."""
    names = [name] if Path(name).suffix else [f"{name}.jpg", f"{name}.png"]
    for place in (
        folder,
        folder / "images",
        folder / "image",
        folder / "imgs",
        folder.parent,
        folder.parent / "images",
    ):
        for option in (*names, *(Path(option).name for option in names)):
            if (place / option).is_file():
                return place / option
    return folder / names[0]


def open_source(source: PictureSource, name: str) -> Picture:
    """Return the picture.

    Raises:
        ImageError: it is missing or cannot be read.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, Encoded):
        try:
            return open_picture(base64.b64decode(source.text, validate=False), name=name)
        except (binascii.Error, ValueError) as cause:
            raise ImageError(f"the picture of {name} is no base64 text ({cause})") from None
    return open_picture(source, name=name)


def items_of(task: Task, data: Path | None) -> Iterator[Item]:
    """Yield the items of a task from the folder that the user names; rows of other splits are left out.

    Raises:
        DataError: the files are not there or are damaged.
    """
    if task.draw is not None:
        yield from task.draw(data)
    if task.read is not None:
        files = find_data(data, task.name, task.files)
        for number, row in enumerate(read_rows(files)):
            item = task.read(row, files[0].parent, number)
            if item is not None:
                yield item


def to_item(row: Mapping[str, Any], folder: Path, number: int, **changes: Any) -> Item:
    """Return a row as an ``Item`` by its usual column names; ``changes`` replaces fields.

    Raises:
        DataError: there is no question.
    """
    question = first(row, QUESTIONS)
    if question is None and "question" not in changes:
        raise DataError(f"row {number} has no question; its columns are {', '.join(row)[:200]}")
    identity = first(row, IDS)
    fields: dict[str, Any] = {
        "id": str(number if identity is None else identity),
        "question": str(question),
        "truth": tuple(str(answer) for answer in as_list(first(row, ANSWERS))),
        "pictures": pictures_of(row, folder) if "pictures" not in changes else (),
        "options": options_of(row),
        "hint": str(row.get("hint") or ""),
        "category": str(first(row, CATEGORIES) or ""),
    }
    return Item(**(fields | changes))
