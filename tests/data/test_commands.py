"""The commands as a stranger types them: exit codes, exact JSON, one line for every mistake."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from handlens.cli.main import run
from handlens.data.formats import FORMATS


def told(capsys, *args: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    code = run([str(arg) for arg in args])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("name", FORMATS)
def test_check_says_clean_or_not(write, samples, capsys, name: str) -> None:
    good = write(samples(3), name, "good")
    assert told(capsys, "data", "check", good, "--json")[:2] == (0, '{"samples": 3, "problems": []}\n')
    bad = write([*samples(3), replace(samples(1)[0], key="twin")], name, "bad")
    code, out, _ = told(capsys, "data", "check", bad, "--json")
    facts = json.loads(out)
    assert (code, facts["samples"], list(facts)) == (1, 4, ["samples", "problems"])
    assert [(row["kind"], row["sample"], sorted(row)) for row in facts["problems"]] == [
        ("duplicate", "twin", ["fix", "kind", "sample"])
    ]


def test_check_for_people_tells_languages_and_price(write, samples, capsys) -> None:
    folder = write(samples(3), "llava")
    code, out, _ = told(capsys, "data", "check", folder, "--show", "1")
    assert code == 0
    assert "3 samples, 0 problems" in out and "languages: en 100.0%" in out and "licences: CC0-1.0 100.0%" in out
    assert "nano:sft on epyc2, one epoch:" in out
    assert "«a square of kind 1<|im_end|>»" in out and "«3<|im_end|>»" in out


def test_json_stays_one_document_when_a_sample_is_shown(write, samples, capsys) -> None:
    code, out, err = told(capsys, "data", "check", write(samples(2), "llava"), "--show", "0", "--json")
    assert code == 0
    assert json.loads(out)["problems"] == []
    assert "«a square of kind 0<|im_end|>»" in err


def test_a_leak_is_found_between_formats(write, samples, capsys) -> None:
    train, held = write(samples(4), "parquet", "train"), write(samples(6)[3:], "llava", "held")
    code, out, _ = told(capsys, "data", "check", train, "--against", held, "--json")
    assert code == 1
    assert [(row["kind"], row["sample"]) for row in json.loads(out)["problems"]] == [("leak", "s3")]


def test_an_empty_folder_is_a_problem_and_not_a_crash(tmp_path, capsys) -> None:
    code, out, err = told(capsys, "data", "check", tmp_path, "--json")
    assert err == ""
    facts = json.loads(out)
    assert (code, facts["samples"], facts["problems"][0]["kind"]) == (1, 0, "unreadable")


@pytest.mark.parametrize(
    ("args", "code", "line"),
    [
        (("data", "check", "nowhere"), 1, "nowhere does not exist"),
        (("data", "chek", "x"), 2, "unknown command 'chek'; did you mean 'check'?"),
        (("data", "convert", "SET", "--to", "lava", "--out", "OUT"), 1, "unknown format 'lava'; did you mean 'llava'?"),
        (("data", "convert", "SET", "--to", "llava", "--out", "SET"), 1, "is not an empty folder"),
        (("data", "show", "SET", "7"), 1, "there is no sample 7; samples are counted from 0"),
        (("data", "price", "SET", "--machine", "a1000"), 1, "unknown machine 'a1000'; did you mean 'a100'?"),
        (("data", "clean", "SET", "--out", "OUT", "--min-correlation", "0.1"), 2, "--min-correlation needs --scorer"),
        (("data", "pack", "SET"), 2, "missing option '--out'"),
        (("data", "mixtures", "sft"), 1, "unknown mixture 'sft'"),
        (("data", "rewrite", "SET", "--out", "OUT", "--model", "gpt9"), 1, "unknown model 'gpt9'"),
    ],
)
def test_mistakes_get_one_line(write, samples, tmp_path, capsys, args, code: int, line: str) -> None:
    places = {"SET": write(samples(2), "llava"), "OUT": tmp_path / "out"}
    got, out, err = told(capsys, *(places.get(word, word) for word in args))
    assert (got, out) == (code, "")
    assert line in err and err.count("\n") == 1


def test_what_a_format_cannot_hold_is_counted(write, rich, samples, tmp_path, capsys) -> None:
    folder = write([*samples(2), *rich], "minicpm-v")
    _, out, _ = told(capsys, "data", "convert", folder, "--to", "folder", "--out", tmp_path / "a", "--json")
    facts = json.loads(out)
    assert (facts["read"], facts["written"], sum(facts["dropped"].values())) == (5, 2, 3)
    _, out, _ = told(capsys, "data", "clean", folder, "--to", "folder", "--out", tmp_path / "b", "--json")
    facts = json.loads(out)
    assert (facts["written"], facts["dropped"]) == (2, {"number-of-pictures": 3})


def test_price_and_mixtures_are_json(write, samples, capsys) -> None:
    code, out, _ = told(capsys, "data", "price", write(samples(2), "llava"), "--recipe", "minicpm-v-2.5:sft", "--json")
    cost = json.loads(out)
    assert code == 0
    assert {"tokens", "slices", "memory_bytes", "hours", "machine", "recipe"} <= set(cost)
    # 8 G weights and more, 16 bytes each, do not fit 25 GB
    assert cost["memory_bytes"] > 120e9 and not cost["fits"]
    _, out, _ = told(capsys, "data", "mixtures", "--json")
    assert [row["name"] for row in json.loads(out)] == ["pretraining", "sft-1", "sft-2", "extras-2.5"]


def test_show_writes_the_picture(write, samples, tmp_path, capsys) -> None:
    file: Path = tmp_path / "one.png"
    code, out, _ = told(capsys, "data", "show", write(samples(2), "shards"), "1", "--picture", file, "--json")
    row = json.loads(out)
    assert code == 0 and file.is_file()
    assert row["sample"] == "s1" and sum(row["is_target"]) == row["targets"] and row["visual"] == 64 * row["slices"]


@pytest.mark.parametrize("command", [("clean",), ("pack",), ("convert", "--to", "llava")])
def test_nothing_left_is_said_in_one_line_and_by_the_exit_code(write, samples, tmp_path, capsys, command) -> None:
    folder = write(samples(3), "shards")
    (folder / "000000.tar").write_bytes(b"no tar" * 9000)
    verb, *options = command
    code, _, err = told(capsys, "data", verb, folder, *options, "--out", tmp_path / "out")
    line = err.strip().splitlines()[-1]
    assert code == 1
    assert line.startswith(f"handlens data: nothing is left of {folder}: all ") and "handlens data check" in line


def test_a_shard_that_is_no_tar_is_told_in_one_line(write, samples, capsys) -> None:
    folder = write(samples(3), "shards")
    (folder / "000000.tar").write_bytes(b"no tar" * 9000)
    _, out, _ = told(capsys, "data", "check", folder, "--json")
    fixes = [row["fix"] for row in json.loads(out)["problems"] if row["kind"] == "unreadable"]
    assert len(fixes) == 1 and "\n" not in fixes[0] and fixes[0].startswith("is damaged (file could not be opened")
