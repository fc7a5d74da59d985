"""Answers on disk as they come: one line each, so that a run that was stopped goes on where it was.

Boundary: JSON lines; knows settings and answers, no model and no score.
"""

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from handlens.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a model answered to one item."""

    id: str
    answer: str
    status: str = "ok"
    """ok, silent (no text came), no_picture (missing or damaged), failed (the model raised an error)."""
    note: str = ""
    """The error, where there was one."""
    tokens: int = 0
    seconds: float = 0.0


class Journal:
    """Answers to one task by one model in one way; ``file`` None keeps them in memory."""

    def __init__(self, file: Path | None, settings: Mapping[str, Any]) -> None:
        self.file = file
        self.given: dict[str, Given] = {}
        self._lock = threading.Lock()
        if file is None:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists():
            self._read(file, settings)
        else:
            self._append({"settings": dict(settings)})

    def add(self, given: Given) -> None:
        """Keep an answer; it is on disk when this returns."""
        with self._lock:
            self.given[given.id] = given
            if self.file is not None:
                self._append(asdict(given))

    def _append(self, row: Mapping[str, Any]) -> None:
        assert self.file is not None
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def _read(self, file: Path, settings: Mapping[str, Any]) -> None:
        """Read what is there; a last line that was cut off by a stop is written again."""
        raw = file.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        try:
            rows = [json.loads(line) for line in whole.decode("utf-8").splitlines()]
        except ValueError:
            raise SettingError(f"the journal {file} is damaged; move it away and run again") from None
        if not rows:
            file.unlink()
            self._append({"settings": dict(settings)})
            return
        before = rows[0].get("settings", {})
        for name in settings:
            if before.get(name) != json.loads(json.dumps(settings[name])):
                raise SettingError(
                    f"the journal {file} was written with another {name} ({_short(before.get(name))}, now "
                    f"{_short(settings[name])}); numbers of both cannot be one score: give another --out"
                )
        if len(whole) < len(raw):
            with file.open("r+b") as stream:
                stream.truncate(len(whole))
        known = Given.__dataclass_fields__
        self.given = {row["id"]: Given(**{key: row[key] for key in known if key in row}) for row in rows[1:]}


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 80 else text[:77] + "..."
