"""``handlens batch`` as a stranger types it."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from handlens.cli.main import run

QUICK = ["--max-tokens", "2", "--max-slices", "1"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (40, 40), "red").save(tmp_path / "in" / "red.png")
    (tmp_path / "in" / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return tmp_path / "in"


def test_answers_in_a_file_counts_on_stderr_and_one_json_on_stdout(folder: Path, tmp_path: Path, capsys):
    out = tmp_path / "a.csv"
    assert run(["batch", str(folder), "What colour?", "--out", str(out), "--json", *QUICK]) == 0
    said = capsys.readouterr()
    last = said.err.strip().splitlines()[-1]
    assert last.startswith("2 pictures and pages of 2 files: 1 answered, 1 damaged, 0 failed; ")
    assert last.endswith(f"wrote {out}")
    found = json.loads(said.out)
    assert [found[name] for name in ("items", "answered", "damaged", "failed", "left")] == [2, 1, 1, 0, 0]
    with out.open(newline="") as stream:
        assert [row["status"] for row in csv.DictReader(stream)] == ["damaged", "ok"]
    # Another question would mix two answers in one file.
    assert run(["batch", str(folder), "Who?", "--out", str(out), *QUICK]) == 1
    assert "holds answers with another question" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere", "What?", "--out", "a.csv"], 1, "nowhere does not exist; give a folder of pictures and PDFs"),
        (["IN", "What?", "--out", "a.txt"], 1, "does not end in .jsonl, .csv, .md; the ending decides the form"),
        (["IN", "What?"], 2, "missing option '--out'"),
        (["IN", " ", "--out", "a.csv"], 2, "the question is empty"),
        (["IN", "What?", "--out", "a.csv", "--job", "2"], 2, "unknown option '--job'; did you mean '--jobs'?"),
        (["IN", "What?", "--out", "a.csv", "--jobs", "0"], 2, "invalid value for '--jobs'"),
        (["IN", "What?", "--out", "a.csv", "--model", "nanno"], 1, "unknown model 'nanno'; did you mean 'nano'?"),
        (["IN", "What?", "--out", "a.csv", "--engine", "spark"], 1, "unknown engine 'spark'; known: local, ray"),
    ],
)
def test_wrong_arguments(arguments, code, message, folder: Path, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["batch", *[str(folder) if word == "IN" else word for word in arguments]]) == code
    assert message in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith("a.")] == []


def test_nothing_answered_is_exit_1(folder: Path, tmp_path: Path, capsys):
    (folder / "red.png").unlink()
    assert run(["batch", str(folder), "What?", "--out", str(tmp_path / "a.md"), *QUICK]) == 1
    assert "0 answered, 1 damaged" in capsys.readouterr().err
