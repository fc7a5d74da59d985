"""What a rename shows was on the disk before."""

import os
from pathlib import Path

import pytest

from handlens.core import durable


@pytest.fixture
def events(monkeypatch) -> list[str]:
    """What reaches the disk, in order."""
    told: list[str] = []
    replace = Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: told.append(Path(f"/proc/self/fd/{number}").resolve().name))
    monkeypatch.setattr(Path, "replace", lambda self, to: (told.append(f"{self.name} is {to.name}"), replace(self, to)))
    return told


def test_the_text_is_there_before_the_name_and_the_name_before_the_return(tmp_path, events):
    part, file = tmp_path / ".part", tmp_path / "file"
    part.write_text("all of it")
    durable.show(part, file)
    assert file.read_text() == "all of it"
    assert events == [".part", ".part is file", tmp_path.name]


def test_what_is_gone_is_told(tmp_path):
    with pytest.raises(FileNotFoundError):
        durable.show(tmp_path / "nothing", tmp_path / "file")
    assert not (tmp_path / "file").exists()
