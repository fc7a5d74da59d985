"""``handlens generate``: shards through the command line."""

import json

import pytest

from handlens.cli.main import run
from handlens.data.shards import read_shards


def test_shards_are_written_and_repeatable(tmp_path, capsys):
    pytest.importorskip(
        "pyarrow", reason="shards need the extra 'data', which a device lacks; the developer run has it"
    )
    folders = tmp_path / "one", tmp_path / "two"
    for folder in folders:
        args = ["generate", "scenes", "--count", "3", "--seed", "7", "--out", str(folder), "--json"]
        assert run(args) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[0])
    assert report == {
        "kind": "scenes", "count": 3, "seed": 7, "split": "train", "languages": ["en"],
        "manifest": str(folders[0] / "manifest.parquet"),
    }  # fmt: skip
    assert len(list(read_shards(folders[0]))) == 3
    first, second = ((folder / "000000.tar").read_bytes() for folder in folders)
    assert first == second


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["recipts"], 1, "unknown kind 'recipts'; did you mean 'receipts'?"),
        (["lines", "--split", "test"], 1, "unknown split 'test'"),
        (["lines", "--count", "0"], 2, "0 is not in the range x>=1"),
        (["lines", "--level", "2"], 2, "2.0 is not in the range 0<=x<=1"),
        ([], 2, "missing argument 'KIND'"),
    ],
)
def test_errors(capsys, tmp_path, args, code, message):
    assert run(["generate", *args, "--out", str(tmp_path / "shards")]) == code
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "shards").exists()
