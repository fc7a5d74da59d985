"""``handlens ask --check``: claims with verdict, probability and slice, on the bundle that ships."""

import json
from pathlib import Path

import pytest

from handlens.cli.main import run

SHAPES = Path(__file__).parents[2] / "examples" / "shapes.png"


def told(capsys: pytest.CaptureFixture, *words: str) -> dict:
    capsys.readouterr()
    assert run(["ask", str(SHAPES), *words, "--max-tokens", "80", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_claims_come_with_verdict_probability_and_slice(capsys):
    report = told(capsys, "Describe the picture.", "--check")
    assert report["claims"]
    num_slices = report["images"][0]["num_slices"]
    for claim in report["claims"]:
        assert set(claim) >= {"text", "verdict", "probability", "slice"}
        assert claim["verdict"] == ("supported" if claim["probability"] > 0.5 else "rejected")
        assert claim["slice"]["picture"] == 0 and 0 <= claim["slice"]["slice"] < num_slices
        assert (claim["slice"]["row"] is None) == (claim["slice"]["slice"] == 0)
    check = report["check"]
    assert check["rejected"] == sum(claim["verdict"] == "rejected" for claim in report["claims"])
    assert check["lost"] == [] and check["seconds"] > 0
    dropped = told(capsys, "Describe the picture.", "--check", "--drop")
    assert (dropped["said"], dropped["answer"]) == (report["answer"], report["check"]["kept"])


def test_people_see_marks_and_the_cost(capsys):
    assert run(["ask", str(SHAPES), "How many circles are there?", "--check", "--max-tokens", "8"]) == 0
    out, err = capsys.readouterr()
    answer, *lines = out.splitlines()
    assert answer and len(lines) == 1 and "%" in lines[0]
    assert "checked 1 claims in " in err


def test_drop_needs_check(capsys):
    assert run(["ask", str(SHAPES), "What?", "--drop"]) == 2
    assert "--drop leaves out what --check finds; give both" in capsys.readouterr().err
