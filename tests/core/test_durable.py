"""What a rename shows was on the disk before."""

import errno
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


def test_a_file_system_that_does_not_tell_of_folders(tmp_path, monkeypatch):
    fsync = os.fsync

    def of_files_alone(number: int) -> None:
        if Path(f"/proc/self/fd/{number}").resolve().is_dir():
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(number)

    monkeypatch.setattr(os, "fsync", of_files_alone)
    (tmp_path / "part").write_text("all of it")
    durable.show(tmp_path / "part", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "all of it"


def test_a_full_disk_is_told_before_the_name_is_given(tmp_path, monkeypatch):
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    (tmp_path / "part").write_text("half")
    with pytest.raises(OSError, match="No space left"):
        durable.show(tmp_path / "part", tmp_path / "file")
    assert not (tmp_path / "file").exists()
