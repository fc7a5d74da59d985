"""``handlens eval`` with benchmarks: the list, a run, and what is refused."""

import json
import socket
from pathlib import Path

import pytest

from handlens.cli.main import run
from handlens.errors import NeedsExtra

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


def test_an_endpoint_that_is_not_there_is_told_before_the_first_question(capsys, monkeypatch):
    monkeypatch.setattr("handlens.engine.openai.time.sleep", lambda seconds: None)
    with socket.create_server(("127.0.0.1", 0)) as one:
        address = f"http://127.0.0.1:{one.getsockname()[1]}/v1#m"  # closed again: nobody listens there
    assert run(["eval", address, "--tasks", "mmstar", "--data", str(DATA)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "is the server running?" in err


def test_a_model_that_answered_nothing_ends_with_an_error(capsys, tmp_path):
    (tmp_path / "MMStar.tsv").write_text("index\timage\tquestion\tA\tB\tanswer\n1\tnowhere.png\t?\ta\tb\tA\n")
    assert run(["eval", "nano", "--tasks", "mmstar", "--data", str(tmp_path), "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["results"][0]["counts"] == {"no_picture": 1}
    assert "nano answered nothing of mmstar: 1 of 1 questions were not answered: " in err
    assert "nowhere.png does not exist" in err
    assert err.count("\n") == 1


def test_without_the_generators_the_suite_that_ships_is_named(capsys, monkeypatch):
    def lacks(*told, **named):
        raise NeedsExtra("the font Lato (font-lato)", "data")

    monkeypatch.setattr("handlens.eval.heldout.evaluate", lacks)
    assert run(["eval", "nano"]) == 1
    err = capsys.readouterr().err
    assert "'handlens[data]'; or measure without it: handlens eval nano --tasks handlens-bench" in err
