"""``handlens eval`` with benchmarks: the list, a run, and what is refused."""

import json
from pathlib import Path

import pytest

from handlens.cli.main import run

DATA = Path(__file__).parents[1] / "eval" / "data"


def test_the_list(capsys):
    assert run(["eval", "--list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) >= 20
    assert all(set(row) == {"name", "metric", "needs"} and all(row.values()) for row in rows)
    assert {"mmbench-en", "mmbench-cn", "object-halbench", "handlens-bench"} <= {row["name"] for row in rows}
    assert run(["eval", "--list"]) == 0
    assert "handlens-bench" in capsys.readouterr().out


def test_nano_on_two_tasks(tmp_path, capsys):
    out = tmp_path / "out"
    words = ["eval", "nano", "--tasks", "mmstar,handlens-bench", "--data", str(DATA), "--limit", "2", "--out", str(out)]
    assert run([*words, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [(row["task"], row["model"], row["count"]) for row in shown["results"]] == [
        ("mmstar", "nano", 2), ("handlens-bench", "nano", 2),
    ]  # fmt: skip
    assert all({"value", "interval", "settings", "counts", "grader"} <= set(row) for row in shown["results"])
    assert (out / "report.html").is_file()
    assert json.loads((out / "results.json").read_text(encoding="utf-8")) == shown
    assert run(words) == 0
    assert "as shipped" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--tasks", "mmstr"], 1, "unknown task 'mmstr'; did you mean 'mmstar'?"),
        (["--tasks", "mmstar"], 1, "name the folder with --data"),
        (["--tasks", "mmstar", "--data", "no/where"], 1, "the data folder no/where does not exist"),
        (["--tasks", "mmstar", "--count", "3"], 2, "--count is for drawn pictures and has no effect on --tasks"),
        (["--compare", "other"], 2, "--compare needs --tasks"),
        (["--tasks", "mmstar", "--data", str(DATA), "--compare", "nano"], 1, "both models are called 'nano'"),
        (["--tasks", "mmstar", "--data", str(DATA), "--jobs", "2"], 2, "--jobs is for endpoints"),
    ],
)
def test_what_is_refused(capsys, words, code, message):
    assert run(["eval", "nano", *words]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
