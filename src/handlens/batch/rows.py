"""What is known of one picture or page after it was asked about, and the files that hold it for people.

Boundary: plain rows in, a JSONL, CSV or Markdown file out, replaced whole: a reader never sees half a file.
"""

import csv
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path

from handlens.batch.journal import Row
from handlens.batch.task import Task
from handlens.errors import SettingError

FORMATS = (".jsonl", ".csv", ".md")
FIELDS = (
    "file", "page", "answer", "error", "status", "ended", "width_px", "height_px", "slices", "visual_tokens",
    "tokens", "attempts", "model", "question", "sha256",
)  # fmt: skip
"""``status`` is ok, damaged (the file cannot be read as a picture) or failed (everything else); ``error`` says why."""


def make_row(task: Task, *, model: str, question: str, **known: object) -> Row:
    """Return a row with every field, in order; what is not known is None."""
    row: Row = dict.fromkeys(FIELDS)
    row |= {"file": task.item.name, "page": task.item.page, "status": "ok", "attempts": task.attempt}
    return row | {"model": model, "question": question, "sha256": task.sha256} | known


def format_of(out: Path) -> str:
    """Return the ending that decides the form of the result.

    Raises:
        SettingError: it is none of the known ones.
    """
    ending = out.suffix.lower()
    if ending not in FORMATS:
        raise SettingError(f"--out {out} does not end in {', '.join(FORMATS)}; the ending decides the form")
    return ending


def write_rows(out: Path, rows: Iterable[Row]) -> None:
    """Write all rows in the form that the file's ending names."""
    text = {".jsonl": as_jsonl, ".csv": as_csv, ".md": as_markdown}[format_of(out)](rows)
    unfinished = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(text.encode("utf-8", "replace"))
        unfinished.replace(out)
    except OSError as cause:
        unfinished.unlink(missing_ok=True)
        raise SettingError(f"cannot write {out}: {cause.strerror or cause}; the answers are kept beside it") from None


def as_jsonl(rows: Iterable[Row]) -> str:
    """Return one JSON object a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def as_csv(rows: Iterable[Row]) -> str:
    """Return a table for spreadsheets; a cell that a spreadsheet would compute gets an apostrophe before it."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\r\n")
    writer.writerow(FIELDS)
    writer.writerows([_cell(row.get(name)) for name in FIELDS] for row in rows)
    return stream.getvalue()


def as_markdown(rows: Iterable[Row]) -> str:
    """Return the question and a table of files and answers."""
    rows = list(rows)
    lines = ["| file | page | answer |", "|---|---|---|"]
    for row in rows:
        said = f"*{row['status']}: {row['error']}*" if row["error"] else row["answer"]
        page = "" if row["page"] is None else str(row["page"])
        lines.append(f"| {_escaped(row['file'])} | {page} | {_escaped(str(said))} |")
    head = [f"# {_escaped(rows[0]['question'])}", "", f"Answers of {rows[0]['model']}.", ""] if rows else []
    return "\n".join([*head, *lines]) + "\n"


def _cell(value: object) -> object:
    """Answers are read from pictures, and a picture may show a formula that calls a program."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _escaped(text: str) -> str:
    """Keep a text inside its cell."""
    text = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return "<br>".join(" ".join(line.split()) for line in text.strip().splitlines())
