"""Measures worked out by hand."""

import pytest

from handlens.eval.measures import cell_f1, cells_of, measure, near_share, number_in, presence_f1, spoken_share
from handlens.eval.mistakes import aligned, confusions

TABLE = "| Name | Value |\n| --- | --- |\n| Bread | 2 |\n| Soup | 3 |"


def test_a_table_is_the_same_in_markdown_and_html():
    rows = (
        "<table><tr><th>Name</th><th>Value</th></tr><tr><td>Bread</td><td>2</td></tr><tr><td>soup</td><td>3</td></tr>"
    )
    assert cells_of(TABLE) == cells_of(rows)
    assert cells_of("no table") == {}


def test_cells_count_in_their_row_and_column_only():
    assert cell_f1([(TABLE, TABLE)]).value == 1.0
    one_wrong = TABLE.replace("3", "8")
    assert cell_f1([(TABLE, one_wrong)]).value == pytest.approx(5 / 6)
    # A row was left out: what stands below it is in the wrong row.
    assert cell_f1([(TABLE, "| Name | Value |\n| Soup | 3 |")]).value == pytest.approx(2 * 2 / (4 + 6))
    assert cell_f1([(TABLE, "")]).value == 0.0
    both = cell_f1([(TABLE, TABLE), (TABLE, "")])
    assert both.value == pytest.approx(2 * 6 / (6 + 12))
    assert both.interval[0] <= both.value <= both.interval[1]
    assert cell_f1([(TABLE, one_wrong)]).interval == (0.0, 1.0)


@pytest.mark.parametrize(
    ("truth", "answer", "right"),
    [("100", "104", 1), ("100", "106", 0), ("1,000", "980", 1), ("0", "0", 1), ("0", "0.1", 0), ("20", "none", 0),
     ("-4", "-4.1", 1), ("-4", "4", 0)],
)  # fmt: skip
def test_a_value_is_near_within_five_percent(truth, answer, right):
    assert near_share([(truth, answer)]).value == right


def test_numbers_are_found_in_words():
    assert number_in("about $1,234.50 in all") == 1234.5
    assert number_in("nothing") is None


def test_presence_by_hand():
    pairs = [("yes", "yes"), ("yes", "Yes."), ("yes", "no"), ("no", "yes"), ("no", "no")]
    assert presence_f1(pairs).value == pytest.approx(2 * 2 / (3 + 3))


def test_an_answer_in_another_language_does_not_count():
    assert spoken_share(["rot", " Stern ", "red", "Rot"], {"rot", "stern"}).value == 0.75


def test_tasks_without_a_measure_have_none():
    assert measure("lines.read", [("a", "a")]) is None
    assert measure("charts.value", []) is None
    assert measure("charts.value", [("5", "5")]).name == "within 5 %"


def test_confusions_are_of_single_characters():
    assert confusions([("10 Oak", "1O 0ak")]) == {("0", "O"): 1, ("O", "0"): 1}
    assert confusions([("cart", "cat"), ("cat", "cart")]) == {("r", ""): 1, ("", "r"): 1}
    assert aligned("ab", "b") == [("a", ""), ("b", "b")]
    assert aligned("", "x") == [("", "x")]
