"""The record of a report and its page."""

import json
import xml.etree.ElementTree as Tree
from pathlib import Path

import pytest

from handlens.cli.main import run
from handlens.errors import DataError
from handlens.measure.charts import Series, chart
from handlens.measure.report import read_report, summarise


def answer(seconds: float, tokens: int, decode: float, first: float) -> dict:
    return {"seconds": seconds, "tokens": tokens, "decode_seconds": decode, "first_word_seconds": first}


def test_the_summary_by_hand() -> None:
    found = summarise([answer(10.0, 20, 4.0, 6.0), answer(4.0, 20, 2.0, 2.0), answer(6.0, 20, 4.0, 3.0)])
    assert found["pictures_per_hour"] == 540.0  # 3 in 20 s
    assert found["sustained_tokens_per_second"] == 7.5  # median of 10 and 5; the first is cold
    assert found["tokens_per_second_spread"] == [5.0, 10.0]
    assert (found["cold_first_word_seconds"], found["warm_first_word_seconds"]) == (6.0, 2.5)
    assert found["late_over_early"] == 0.667  # 1/6 over 1/4


def test_a_short_report_of_nano_and_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record, page = tmp_path / "r.json", tmp_path / "r.html"
    command = ["report", "nano", "--minutes", "0.001", "--image", "224x224", "--max-tokens", "4", "--json"]
    assert run([*command, "--out", str(record), "--page", str(page)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "handlens.report/1"
    assert found == read_report(record)
    assert found["summary"]["pictures"] >= 1 and len(found["samples"]) >= 2
    assert {"name", "peak_bytes"} == set(found["memory"]["phases"][0])
    text = page.read_text()
    assert text.count("<svg") >= 3
    assert "http" not in text.replace("http://www.w3.org/2000/svg", ""), "the page asks nobody for anything"
    assert run(["report", "--compare", str(record), str(record), "--page", str(page)]) == 0
    assert page.read_text().count("<th>") == 3


@pytest.mark.parametrize(
    ("content", "message"), [("x", "is no report"), ('{"schema": "other/2"}', "has schema 'other/2'")]
)
def test_a_file_that_is_no_report(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=r"is no report|has schema 'other/2'"):
        read_report(tmp_path / "a.json")


@pytest.mark.parametrize("points", [[], [(1.0, 1.0)], [(0.0, 0.0), (0.0, 0.0)], [(-3.0, 1e9), (5.0, 2e9)]])
def test_a_chart_is_well_formed_and_stays_inside(points: list[tuple[float, float]]) -> None:
    tree = Tree.fromstring(chart("a < b & c", "x", "y", [Series(name="<one>", points=points)]))
    circles = [node for node in tree.iter() if node.tag.endswith("circle")]
    assert len(circles) == len(points)
    for circle in circles:
        assert 0 <= float(circle.attrib["cx"]) <= 720 and 0 <= float(circle.attrib["cy"]) <= 300
