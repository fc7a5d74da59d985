"""The fit finds the line that data was drawn from, and confidence then means what it says."""

import json
import math

import numpy as np
import pytest

import handlens
from handlens.align.judge import calibration_error
from handlens.errors import ModelError
from handlens.fields.calibration import (
    FEWEST,
    FILE,
    Calibration,
    PlattLine,
    calibration_of,
    case_of,
    fit,
    fit_line,
    load,
    save,
)


def drawn(line: PlattLine, count: int, seed: int = 1) -> tuple[list[float], list[bool]]:
    rng = np.random.default_rng(seed)
    given = 1 / (1 + np.exp(-rng.normal(1, 2, count)))
    return given.tolist(), [bool(rng.random() < line(p)) for p in given]


@pytest.mark.parametrize("line", [PlattLine(), PlattLine(0.5, -1.0), PlattLine(2.0, 0.7)])
def test_the_line_is_found_again(line):
    found = fit_line(*drawn(line, 20_000))
    # Standard errors of a logistic fit on 20,000 examples are near 0.03.
    assert found.slope == pytest.approx(line.slope, abs=0.1)
    assert found.offset == pytest.approx(line.offset, abs=0.1)


def test_confidence_on_new_data_is_calibrated_where_probability_was_not():
    truth = PlattLine(0.4, -0.8)
    line = fit_line(*drawn(truth, 3000))
    given, right = drawn(truth, 5000, seed=2)
    before, after = calibration_error(given, right), calibration_error([line(p) for p in given], right)
    assert before > 0.15
    assert after < 0.04


@pytest.mark.parametrize("right", [[True] * 30, [False] * 30])
def test_a_case_that_was_always_right_or_wrong_stays_short_of_certain(right):
    line = fit_line(np.linspace(0.01, 0.99, 30).tolist(), right)
    values = [line(p) for p in (0.0, 0.5, 1.0)]
    assert all(0.001 < value < 0.999 for value in values)
    assert all((value > 0.5) == right[0] for value in values)


def test_a_rare_case_takes_the_line_of_its_family_and_no_data_changes_nothing():
    often, seldom = case_of(is_present=True, looks=1, agree=True), case_of(is_present=True, looks=2, agree=True)
    given, right = drawn(PlattLine(0.5, -1.0), 200)
    examples = [(often, p, truth) for p, truth in zip(given, right, strict=True)]
    lines = fit([*examples, *examples[: FEWEST - 1][:0], (seldom, 0.5, True)])
    assert set(lines) == {"value", "value/once"}
    calibration = Calibration(lines=lines)
    assert calibration.confidence(seldom, 0.3) == lines["value"](0.3)
    assert Calibration().confidence(often, 0.3) == pytest.approx(0.3)
    assert not Calibration().is_fitted


def test_files_come_back_and_belong_to_weights(tmp_path):
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "manifest.json").write_text(json.dumps({"files": {"language-Q8_0.gguf": {"sha256": "ab"}}}))
    made = Calibration(lines={"value": PlattLine(0.5, -1.0)}, weights="ab", made={"count": 30})
    save(made, bundle / FILE)
    assert load(bundle / FILE) == made
    assert calibration_of(bundle) == made
    save(Calibration(lines=made.lines, weights="cd"), bundle / FILE)  # made for other weights: says nothing here
    assert not calibration_of(bundle).is_fitted
    assert not calibration_of(None).is_fitted
    (bundle / FILE).write_text("{}")
    with pytest.raises(ModelError, match=r"fields.json is no calibration .*benchmarks/fields.py --write"):
        calibration_of(bundle)


def test_the_calibration_that_ships_can_be_read_and_says_how_it_was_made():
    file = handlens.PACKAGED["nano"].parent / "fields" / "nano.json"
    shipped = load(file)
    assert {"command", "date", "examples"} <= set(shipped.made)
    assert all(math.isfinite(line.slope + line.offset) for line in shipped.lines.values())
