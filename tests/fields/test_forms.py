"""What a form lets through is what its value can be made from, and ``not present`` always fits."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlens.core.grammar import END
from handlens.data.generate import receipt_talk
from handlens.errors import SettingError
from handlens.fields.forms import NOT_PRESENT, form_of, parse_number


def accepts(schema, answer: str) -> bool:
    grammar = form_of(schema).grammar
    state = grammar.start()
    for byte in answer.encode():
        state = grammar.step(state, byte)
    return END in state


@pytest.mark.parametrize(
    "schema",
    [{"type": kind} for kind in ("string", "number", "integer", "boolean", "array")]
    + [{"enum": ["EUR", "USD"]}, {"const": 5}, {"type": "string", "maxLength": 3}, {"type": "number", "minimum": 0}],
)
def test_not_present_fits_every_form_and_nothing_at_all_fits_none(schema):
    assert accepts(schema, NOT_PRESENT)
    assert not accepts(schema, "")


def test_the_words_are_those_that_nano_learned():
    assert NOT_PRESENT == receipt_talk.NOT_PRESENT


@given(st.integers(0, 10**9), st.sampled_from(["", "$", "€", "£"]), st.sampled_from(["", "€", " €"]), st.booleans())
def test_printed_amounts_come_back_as_numbers(cents, before, behind, is_continental):
    written = f"{cents / 100:,.2f}"
    if is_continental:
        written = written.translate(str.maketrans(",.", ".,"))
    printed = f"{before}{written}{behind}"
    assert accepts({"type": "number"}, printed)
    assert parse_number(printed) == pytest.approx(cents / 100)
    assert accepts({"type": "number"}, f"-{printed}")
    assert not accepts({"type": "number", "minimum": 0}, f"-{printed}")


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20))
def test_a_text_fits_unless_it_begins_with_a_space(words):
    assert accepts({"type": "string"}, words) == (words[0] != " ")
    assert accepts({"type": "string", "maxLength": 5}, words) == (words[0] != " " and len(words) <= 5)


def test_values_have_the_type_of_the_schema():
    cases = [
        ({"type": "boolean"}, "yes", True), ({"type": "boolean"}, "no", False), ({"type": "integer"}, "12", 12),
        ({"enum": ["EUR", 5]}, "EUR", "EUR"), ({"enum": ["EUR", 5]}, "5", 5), ({"type": "string"}, "5", "5"),
        ({"type": "array", "items": {"type": "integer"}}, "[1, 2]", [1, 2]),
    ]  # fmt: skip
    for schema, answer, value in cases:
        assert accepts(schema, answer)
        found = form_of(schema).parse(answer)
        assert (found, type(found)) == (value, type(value))
    assert not accepts({"type": "integer", "minimum": 0, "maximum": 9}, "12")


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "string", "pattern": "a+"}, "uses 'pattern', which answers cannot be held to"),
        ({"type": "text"}, "has type 'text'"),
        ({"enum": [[1]]}, "choices of a field are texts, numbers or truth values"),
        ({"enum": ["a", "not present"]}, "is always allowed"),
        ({"enum": []}, "1 to 4,096 choices"),
    ],
)
def test_a_schema_that_no_answer_can_be_held_to(schema, message):
    with pytest.raises(SettingError, match=message):
        form_of(schema)


def test_equal_schemas_share_a_form():
    assert form_of({"type": "string", "maxLength": 9}) is form_of(json.loads('{"maxLength": 9, "type": "string"}'))
