"""What a station has done, one line of JSON for each question, so that a run that was stopped goes on.

Boundary: rows that have an ``id``; the first line holds the settings that made them.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from handlens.errors import DataError, SettingError


class Journal:
    """The rows of one station."""

    def __init__(self, file: Path, settings: Mapping[str, Any]) -> None:
        self.file = file
        self.rows: dict[str, dict[str, Any]] = {}
        settings = json.loads(json.dumps(settings, default=str))
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.exists() and file.stat().st_size:
                self._read(settings)
            else:
                self._append({"settings": settings})
        except OSError as cause:
            raise SettingError(f"cannot write {file}: {cause.strerror or cause}; give another --out") from None

    def add(self, row: Mapping[str, Any]) -> None:
        """Keep a row; it is on the disk when this returns.

        Raises:
            SettingError: the disk is full or gone.
        """
        self.rows[str(row["id"])] = dict(row)
        try:
            self._append(row)
        except OSError as cause:
            raise SettingError(
                f"cannot write {self.file}: {cause.strerror or cause}; free some space and run the same command again"
            ) from None

    def missing(self, ids: Iterator[str] | list[str]) -> list[str]:
        """Return the ids that have no row yet."""
        return [one for one in ids if one not in self.rows]

    def _append(self, row: Mapping[str, Any]) -> None:
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def _read(self, settings: Mapping[str, Any]) -> None:
        """Read what is there; a last line that a kill has cut is dropped and done again."""
        raw = self.file.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) < len(raw):
            with self.file.open("r+b") as stream:
                stream.truncate(len(whole))
        try:
            rows = [json.loads(line) for line in whole.decode("utf-8").splitlines()]
            before = rows[0]["settings"] if rows else None
            self.rows = {str(row["id"]): row for row in rows[1:]}
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{self.file} is damaged; move it away and run the same command again") from None
        if before is None:
            self._append({"settings": settings})
            return
        for name in settings.keys() | before.keys():
            if before.get(name) != settings.get(name):
                raise SettingError(
                    f"{self.file} was made with {name} {_short(before.get(name))}, now it is "
                    f"{_short(settings.get(name))}; give another --out, or the same setting"
                )


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a finished station.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        return [row for row in rows if "settings" not in row or "id" in row]
    except (OSError, ValueError) as cause:
        reason = getattr(cause, "strerror", None) or "no JSON lines"
        raise DataError(f"cannot read {file}: {reason}; run the station before it again") from None


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 80 else text[:77] + "..."
