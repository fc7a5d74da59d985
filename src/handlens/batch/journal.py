"""Answers on disk as they come, one line each, so that a run that was killed goes on where it was.

Boundary: JSON lines; the first holds the settings. Knows no model and no picture.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from handlens.errors import SettingError

Row = dict[str, Any]
"""One line of the result; ``batch/rows.py`` names its fields."""


class Journal:
    """Rows by key; a row is on disk when ``add`` returns.

    Args:
        file: made where it is missing; its folder must be there.
        settings: what decides the answers; a journal of other settings is refused.
        fresh: forget what is there.

    Raises:
        SettingError: the file is damaged, belongs to other settings, or another run writes to it.
    """

    def __init__(self, file: Path, settings: Mapping[str, Any], *, fresh: bool = False) -> None:
        self.file = file
        self.rows: dict[str, Row] = {}
        self.answered: dict[tuple[str, int | None], Row] = {}
        """Rows with an answer, by the hash of their file and the page."""
        try:
            self._stream: IO[bytes] = file.open("a+b")
        except OSError as cause:
            raise SettingError(f"cannot write {file}: {cause.strerror or cause}; give another --out") from None
        try:
            _lock(self._stream, file)
            if fresh:
                self._stream.truncate(0)
            self._read(json.loads(json.dumps(dict(settings))))
        except BaseException:
            self._stream.close()
            raise

    def add(self, key: str, row: Row) -> None:
        """Keep a row."""
        self._hold(key, row)
        self._append({"key": key, **row})

    def close(self) -> None:
        """Let another run write."""
        self._stream.close()

    def _hold(self, key: str, row: Row) -> None:
        self.rows[key] = row
        if row["status"] == "ok":
            self.answered[row["sha256"], row["page"]] = row

    def _append(self, row: Mapping[str, Any]) -> None:
        self._stream.write(json.dumps(row).encode("ascii") + b"\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def _read(self, settings: dict[str, Any]) -> None:
        """Read what is there; a last line that was cut off by a kill is removed."""
        self._stream.seek(0)
        raw = self._stream.read()
        whole = raw[: raw.rfind(b"\n") + 1]
        self._stream.truncate(len(whole))
        try:
            lines = [json.loads(line) for line in whole.decode("utf-8").split("\n") if line]
            before = lines[0]["settings"] if lines else None
            rows = {line.pop("key"): line for line in lines[1:]}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise SettingError(
                f"{self.file} is no journal of a batch, or is damaged; give another --out, or --fresh to replace it"
            ) from None
        if before is None:
            self._append({"settings": settings})
        elif before != settings:
            names = [name for name in settings if before.get(name) != settings[name]]
            name = names[0] if names else "set of settings"
            raise SettingError(
                f"{self.file} holds answers with another {name} ({_short(before.get(name))}, now "
                f"{_short(settings.get(name))}); give another --out, or --fresh to ask all again"
            )
        for key, row in rows.items():
            self._hold(key, row)


def _lock(stream: IO[bytes], file: Path) -> None:
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows has no such lock
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise SettingError(f"another run writes to {file}; wait for its end or give another --out") from None


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 60 else text[:57] + "..."
