"""``handlens fields`` as a stranger types it."""

import json

import pytest
from tests.serve.conftest import EXAMPLES

from handlens.cli.main import run

RECEIPT = str(EXAMPLES / "receipt.png")


def test_one_object_on_stdout(capsys):
    assert (
        run(["fields", RECEIPT, "--schema", str(EXAMPLES / "receipt.schema.json"), "--max-slices", "1", "--json"]) == 0
    )
    report = json.loads(capsys.readouterr().out)
    assert list(report["fields"]) == ["shop", "date", "total", "tip", "table_number"]
    for one in report["fields"].values():
        assert 0 <= one["confidence"] <= 1
        assert (one["answer"] == "not present") == (one["value"] is None) == (not one["present"])
    assert report["image"]["width"] == 700


def test_one_line_for_each_field(capsys):
    schema = '{"properties": {"total": {"type": "number"}, "table_number": {"type": "integer"}}}'
    assert run(["fields", RECEIPT, "--schema", schema, "--max-slices", "1", "--no-places", "--look-again", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["total", "table_number"]
    assert all("%" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([RECEIPT], 2, "missing option '--schema'"),
        ([RECEIPT, "--schema", "nowhere.json"], 1, "cannot read the schema nowhere.json"),
        ([RECEIPT, "--schema", "{}"], 1, "the schema names no fields"),
        ([RECEIPT, "--schema", "{1}"], 1, "the schema is not JSON"),
        ([RECEIPT, "--schema", '{"properties": {"a": {"type": "strng"}}}'], 1, "did you mean 'string'?"),
        ([RECEIPT, "--schema", '{"properties": {"a": {"type": "string"}}}', "--look-again", "2"], 2, "look-again"),
        (["nowhere.png", "--schema", '{"properties": {"a": {"type": "string"}}}'], 1, "nowhere.png"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments, code, message, capsys):
    assert run(["fields", *arguments]) == code
    said = capsys.readouterr()
    assert message in said.err
    assert said.out == ""
    assert len(said.err.strip().splitlines()) == 1
