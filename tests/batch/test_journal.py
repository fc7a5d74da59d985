"""Rows survive a kill at any byte."""

from pathlib import Path

import pytest

from handlens.batch.journal import Journal
from handlens.errors import SettingError

SETTINGS = {"question": "What?", "model": "nano"}


def row(name: str, **more: object) -> dict[str, object]:
    return {"file": name, "page": None, "status": "ok", "sha256": f"hash of {name}", "answer": "é\ud800", **more}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "a.journal"
    journal = Journal(file, SETTINGS)
    for name in ("a", "b"):
        journal.add(name, row(name))
    journal.add("a", row("a", answer="later"))
    journal.close()
    return file


def test_rows_come_back_and_the_last_of_a_key_counts(file: Path):
    journal = Journal(file, SETTINGS)
    assert journal.rows == {"a": row("a", answer="later"), "b": row("b")}
    assert journal.answered[("hash of b", None)] == row("b")
    journal.close()


def test_a_file_cut_at_any_byte_opens_with_whole_rows_only(file: Path):
    whole = file.read_bytes()
    for length in range(0, len(whole), 7):
        file.write_bytes(whole[:length])
        journal = Journal(file, SETTINGS)
        num_whole = whole[:length].count(b"\n")
        assert len(journal.rows) == min(2, max(0, num_whole - 1))
        journal.add("c", row("c"))
        journal.close()
        again = Journal(file, SETTINGS)
        assert again.rows["c"] == row("c")
        again.close()


def test_from_a_damaged_line_on_all_is_asked_again(file: Path):
    lines = file.read_bytes().splitlines(keepends=True)
    for damage in (b"\0" * 50 + b"\n", b'{"no": "key"}\n', b"[]\n", b"\xff\n"):
        file.write_bytes(b"".join([lines[0], lines[1], damage, lines[2]]))
        journal = Journal(file, SETTINGS)
        assert list(journal.rows) == ["a"]
        journal.close()
        assert file.read_bytes() == lines[0] + lines[1]


def test_other_settings_are_refused_and_named(file: Path):
    with pytest.raises(
        SettingError, match=r'another question \("What\?", now "Who\?"\); give another --out, or --fresh'
    ):
        Journal(file, SETTINGS | {"question": "Who?"})
    journal = Journal(file, SETTINGS | {"question": "Who?"}, fresh=True)
    assert journal.rows == {}
    journal.close()


def test_two_runs_cannot_write_one_file(file: Path):
    pytest.importorskip("fcntl", reason="files are locked this way on Unix only")
    first = Journal(file, SETTINGS)
    with pytest.raises(SettingError, match="another run writes to"):
        Journal(file, SETTINGS)
    first.close()
    Journal(file, SETTINGS).close()


def test_a_file_that_is_no_journal_is_not_touched(tmp_path: Path):
    file = tmp_path / "x.journal"
    for text in ("hello\n", "[1]\n", "hello", '{"key": "a"}\n'):
        file.write_text(text)
        with pytest.raises(SettingError, match="is no journal of a batch"):
            Journal(file, SETTINGS)
        assert file.read_text() == text
