"""Answers on disk as they come, one line each, so that a run that was killed goes on where it was.

Boundary: JSON lines; the first holds the settings. Knows no model and no picture.
"""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from handlens.errors import SettingError

SYNC_SECONDS = 1.0
"""After a power cut, rows of so many seconds may be asked about again; after a kill none."""
Row = dict[str, Any]
"""One line of the result; ``batch/rows.py`` names its fields."""


class Journal:
    """Rows by key; a row that ``add`` took survives a kill of this process.

    Args:
        file: made where it is missing; its folder must be there.
        settings: what decides the answers; a journal of other settings is refused.
        fresh: forget what is there.

    Raises:
        SettingError: the file is no journal, belongs to other settings, or another run writes to it.
    """

    def __init__(self, file: Path, settings: Mapping[str, Any], *, fresh: bool = False) -> None:
        self.file = file
        self.rows: dict[str, Row] = {}
        self.answered: dict[tuple[str, int | None], Row] = {}
        """Rows with an answer, by the hash of their file and the page."""
        self._synced = 0.0
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
        """Put all on disk and let another run write."""
        os.fsync(self._stream.fileno())
        self._stream.close()

    def _hold(self, key: str, row: Row) -> None:
        self.rows[key] = row
        if row["status"] == "ok":
            self.answered[row["sha256"], row["page"]] = row

    def _append(self, row: Mapping[str, Any]) -> None:
        self._stream.write(json.dumps(row).encode("ascii") + b"\n")
        self._stream.flush()  # the system has it now: a kill takes nothing
        if time.monotonic() - self._synced > SYNC_SECONDS:
            os.fsync(self._stream.fileno())
            self._synced = time.monotonic()

    def _read(self, settings: dict[str, Any]) -> None:
        """Read what is there; from the first line that is cut or damaged on, all is removed and will be asked again."""
        self._stream.seek(0)
        lines: list[Row] = []
        length = 0
        for line in self._stream:
            try:
                lines.append(_parsed(line, is_first=not lines))
            except (ValueError, KeyError, TypeError):
                break
            length += len(line)
        if not lines and self._stream.seek(0, os.SEEK_END) > length and not _is_cut(self.file):
            raise SettingError(f"{self.file} is no journal of a batch; give another --out, or --fresh to replace it")
        self._stream.truncate(length)
        if not lines:
            self._append({"settings": settings})
            return
        before = lines[0]["settings"]
        if before != settings:
            names = [name for name in settings if before.get(name) != settings[name]]
            name = names[0] if names else "set of settings"
            raise SettingError(
                f"{self.file} holds answers with another {name} ({_short(before.get(name))}, now "
                f"{_short(settings.get(name))}); give another --out, or --fresh to ask all again"
            )
        for row in lines[1:]:
            self._hold(row.pop("key"), row)


def _parsed(line: bytes, *, is_first: bool) -> dict[str, Any]:
    """Return a whole line with the fields that it needs; raises what any damage raises."""
    if not line.endswith(b"\n"):
        raise ValueError("cut")
    parsed = json.loads(line)
    for name in ("settings",) if is_first else ("key", "file", "page", "status", "sha256"):
        parsed[name]
    return parsed


def _is_cut(file: Path) -> bool:
    """True for a first line that a kill cut off."""
    start = b'{"settings": '
    with file.open("rb") as stream:
        return stream.read(len(start)) in [start[:length] for length in range(len(start) + 1)]


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
