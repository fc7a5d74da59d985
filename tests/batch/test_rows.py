"""The three forms hold the same rows, whatever stands on a picture."""

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlens.batch.items import Item
from handlens.batch.rows import FIELDS, as_csv, as_jsonl, as_markdown, format_of, make_row, write_rows
from handlens.batch.task import Task
from handlens.errors import SettingError

TASK = Task(item=Item(path=Path("a.png"), name="a|b.png"), sha256="00")


def answered(text: str) -> dict[str, object]:
    return make_row(TASK, model="nano", question="What?", answer=text)


@given(st.lists(st.text(st.characters(codec="utf-8"))))
def test_every_form_keeps_every_row(texts: list[str]):
    rows = [answered(text) for text in texts]
    assert [json.loads(line)["answer"] for line in as_jsonl(rows).split("\n")[:-1]] == texts
    read = list(csv.DictReader(io.StringIO(as_csv(rows), newline="")))
    assert [cell["answer"].removeprefix("'") for cell in read] == [text.removeprefix("'") for text in texts]
    lines = as_markdown(rows).split("\n")
    assert sum(line.startswith("| a\\|b.png |") for line in lines) == len(rows)
    unescaped = [line.replace("\\\\", "").replace("\\|", "").count("|") for line in lines if line.startswith("| a")]
    assert set(unescaped) <= {4}


def test_a_cell_that_a_spreadsheet_would_compute_is_text():
    for formula in ("=cmd|'/c calc'!A1", "+1", "-1", "@SUM(A1)", "\t=1"):
        (cell,) = [row["answer"] for row in csv.DictReader(io.StringIO(as_csv([answered(formula)]), newline=""))]
        assert cell == f"'{formula}"


def test_fields_stand_in_one_order():
    assert tuple(answered("x")) == FIELDS
    assert as_csv([]).split("\r\n")[0].split(",") == list(FIELDS)


def test_the_ending_decides(tmp_path: Path):
    assert [format_of(Path(f"a{end}")) for end in (".jsonl", ".CSV", ".md")] == [".jsonl", ".csv", ".md"]
    with pytest.raises(SettingError, match=r"--out a.xlsx does not end in \.jsonl, \.csv, \.md"):
        format_of(Path("a.xlsx"))
    write_rows(tmp_path / "a.md", [make_row(TASK, model="nano", question="<b>?", status="damaged", error="cut")])
    text = (tmp_path / "a.md").read_text()
    assert "# &lt;b>?" in text
    assert "*damaged: cut*" in text
    assert [file.name for file in tmp_path.iterdir()] == ["a.md"]
