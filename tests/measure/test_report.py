"""The record of a report and its page."""

import json
import time
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
    assert {"name", "peak_bytes", "cold_peak_bytes", "warm_peak_bytes"} == set(found["memory"]["phases"][0])
    assert found["settings"] == ""
    text = page.read_text()
    assert text.count("<svg") >= 3
    assert "http" not in text.replace("http://www.w3.org/2000/svg", ""), "the page asks nobody for anything"
    assert run(["report", "--compare", str(record), str(record), "--page", str(page)]) == 0
    text = page.read_text()
    assert text.count("<th>") == 4 and "second over first" in text and "<td>1.00</td>" in text
    assert "(1)</text>" in text and "(2)</text>" in text, "two records of one name are told apart"
    assert "second over first: pictures per hour 1.00" in capsys.readouterr().out


@pytest.mark.parametrize("hours", [1, -1], ids=["a log of the whole run", "a log that ended before"])
def test_a_power_log_is_read_and_one_that_ends_too_early_loses_nothing(
    hours: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, begin = tmp_path / "meter.csv", time.time() - 7200
    log.write_text(f"seconds,watts\n{begin},10\n{time.time() + 3600 * hours},10\n")
    command = ["report", "nano", "--minutes", "0.001", "--image", "224x224", "--max-tokens", "4", "--json"]
    assert run([*command, "--power", str(log)]) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    energy, last = found["energy"], found["samples"][-1]
    if hours > 0:
        assert energy["method"] == "power meter (meter.csv)"
        assert energy["joules"] == pytest.approx(10 * last["seconds"], rel=0.02) and last["joules"] == energy["joules"]
    else:
        assert energy["method"] == "not measurable here" and last["joules"] is None
        assert "does not cover the run" in told.err and found["summary"]["pictures"] >= 1


def test_a_power_log_that_is_none_is_told_before_the_minutes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report", "nano", "--minutes", "60", "--power", str(tmp_path / "none.csv")]) == 1
    assert "cannot read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x", "is no report"),
        ('{"schema": "other/2"}', "has schema 'other/2'"),
        ('{"schema": "handlens.report/1"}', "lacks model, quantisation, .*summary.pictures, "),
    ],
)
def test_a_file_that_is_no_report(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_report(tmp_path / "a.json")


@pytest.mark.parametrize("points", [[], [(1.0, 1.0)], [(0.0, 0.0), (0.0, 0.0)], [(-3.0, 1e9), (5.0, 2e9)]])
def test_a_chart_is_well_formed_and_stays_inside(points: list[tuple[float, float]]) -> None:
    tree = Tree.fromstring(chart("a < b & c", "x", "y", [Series(name="<one>", points=points)]))
    circles = [node for node in tree.iter() if node.tag.endswith("circle")]
    assert len(circles) == len(points)
    for circle in circles:
        assert 0 <= float(circle.attrib["cx"]) <= 720 and 0 <= float(circle.attrib["cy"]) <= 300


def test_names_of_several_series_are_whole_and_stand_below(tmp_path: Path) -> None:
    names = ["nano Q8_0 (vision_threads 1, mmap True) on a processor with a long name (16 cores)", "another"]
    series = [Series(name=name, points=[(0.0, 1.0), (1.0, 2.0)]) for name in names]
    tree = Tree.fromstring(chart("a", "x", "y", series))
    height = float(tree.attrib["viewBox"].split()[3])
    legend = [node for node in tree.iter() if node.text in names]
    assert [node.text for node in legend if node.tag.endswith("text")] == names
    assert all(300 < float(node.attrib["y"]) < height for node in legend if node.tag.endswith("text"))


def test_noise_is_not_drawn_as_a_difference() -> None:
    tree = Tree.fromstring(chart("a", "x", "y", [Series(name="b", points=[(0.0, 124.510), (1.0, 124.502)])]))
    heights = [float(node.attrib["cy"]) for node in tree.iter() if node.tag.endswith("circle")]
    assert abs(heights[0] - heights[1]) < 1
