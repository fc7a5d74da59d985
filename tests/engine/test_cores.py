import os
from pathlib import Path

import pytest

from handlens.engine import cores


def test_free_cores_are_between_one_and_those_allowed() -> None:
    assert 1 <= cores.count_free_cores() <= cores.physical_cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("loadavg", "quota", "expected"),
    [
        ("0.10 0.2 0.3 1/93 6581", "max 100000", 8),  # idle
        ("3.10 0.2 0.3 4/93 6581", "max 100000", 5),  # three neighbours, now and for a minute
        ("7.90 0.2 0.3 1/93 6581", "max 100000", 8),  # our own last answer: nothing runs now
        ("0.10 0.2 0.3 9/93 6581", "max 100000", 8),  # a burst of a moment
        ("20.0 0.2 0.3 21/93 6581", "max 100000", 1),  # full
        ("0.10 0.2 0.3 1/93 6581", "250000 100000", 2),  # a container with two and a half cores
        ("", "", 8),  # a system without these files
    ],
)
def test_neighbours_and_containers_are_respected(
    loadavg: str, quota: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"/proc/loadavg": loadavg, "/sys/fs/cgroup/cpu.max": quota}
    monkeypatch.setattr(cores, "_read", lambda file: files.get(file, ""))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert cores.count_free_cores() == expected


def test_a_missing_file_reads_as_nothing(tmp_path: Path) -> None:
    assert cores._read(str(tmp_path / "none")) == ""
