"""Shards hold what was generated, byte for byte the same however they were made."""

import hashlib
import tarfile
from pathlib import Path

import pyarrow.parquet
import pytest

from handlens.data.generate import KINDS, generate
from handlens.data.shards import read_shards, record_from_json, record_to_json, write_shards
from handlens.errors import DataError


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards")
    write_shards("mixed", 12, 5, out, per_shard=5)
    return out


def test_jobs_do_not_change_a_byte(folder: Path, tmp_path: Path) -> None:
    write_shards("mixed", 12, 5, tmp_path, jobs=2, per_shard=5)
    assert digests(tmp_path) == digests(folder)
    assert set(digests(folder)) == {"000000.tar", "000001.tar", "000002.tar", "manifest.parquet"}


@pytest.mark.parametrize("kind", KINDS)
def test_three_jobs_write_what_one_writes(kind: str, tmp_path: Path) -> None:
    write_shards(kind, 5, 3, tmp_path / "one", jobs=1, per_shard=2)
    write_shards(kind, 5, 3, tmp_path / "three", jobs=3, per_shard=2)
    made = digests(tmp_path / "one")
    assert digests(tmp_path / "three") == made
    assert sorted(made) == ["000000.tar", "000001.tar", "000002.tar", "manifest.parquet"]


def test_records_come_back_whole(folder: Path) -> None:
    records = list(read_shards(folder))
    assert len(records) == 12
    for index, record in enumerate(records):
        made = generate("mixed", 5, index)
        assert record.picture.tobytes() == made.picture.tobytes()
        assert (record.key, record.turns, record.table, record.facts) == (made.key, made.turns, made.table, made.facts)
        assert [line.text for line in record.lines] == [line.text for line in made.lines]
        pairs = [(a.box, b.box) for ln, lm in zip(record.lines, made.lines, strict=True)
                 for a, b in zip(ln.glyphs, lm.glyphs, strict=True)]  # fmt: skip
        assert all(abs(a - b) <= 0.0051 for one, two in pairs for a, b in zip(one, two, strict=True))


def test_json_round_trip() -> None:
    record = generate("scenes", 5, 3)
    row = record_to_json(record)
    assert record_to_json(record_from_json(row, record.picture)) == row


def test_tar_entries_carry_no_machine(folder: Path) -> None:
    with tarfile.open(folder / "000000.tar") as tar:
        entries = tar.getmembers()
    assert {(e.mtime, e.uid, e.gid, e.uname, e.gname) for e in entries} == {(0, 0, 0, "", "")}
    assert [e.name.rsplit(".", 1)[1] for e in entries] == ["json", "png"] * 5


def test_manifest_lists_every_record(folder: Path) -> None:
    rows = pyarrow.parquet.read_table(folder / "manifest.parquet").to_pylist()
    records = list(read_shards(folder))
    assert [row["key"] for row in rows] == [record.key for record in records]
    assert [(row["width_px"], row["height_px"]) for row in rows] == [record.picture.size for record in records]
    assert [row["shard"] for row in rows] == ["000000.tar"] * 5 + ["000001.tar"] * 5 + ["000002.tar"] * 2


def test_progress_ends_at_the_count(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_shards("lines", 5, 1, tmp_path, per_shard=2, progress=lambda done, wanted: seen.append((done, wanted)))
    assert seen == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


def test_progress_of_two_processes_ends_at_the_count(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    progress = lambda done, wanted: seen.append((done, wanted))  # noqa: E731
    write_shards("lines", 5, 1, tmp_path, jobs=2, per_shard=3, progress=progress)
    assert seen == sorted(seen)
    assert seen[-1] == (5, 5)


def test_an_error_in_a_process_ends_the_others(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unknown kind 'linse'"):
        write_shards("linse", 400, 1, tmp_path, jobs=2, per_shard=2)
    assert list(tmp_path.iterdir()) == []


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        write_shards("linse", 5, 1, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_wrong_counts_and_strange_shards_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="count is 0; needed is 1 or more"):
        write_shards("lines", 0, 1, tmp_path)
    with pytest.raises(DataError, match="holds 2 shards of a larger run"):
        write_shards("lines", 5, 1, folder, per_shard=5)


def test_damaged_shards_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no shards"):
        list(read_shards(tmp_path))
    write_shards("lines", 3, 1, tmp_path)
    shard = tmp_path / "000000.tar"
    shard.write_bytes(shard.read_bytes()[:700])
    with pytest.raises(DataError, match=r"000000\.tar is damaged"):
        list(read_shards(tmp_path))
