"""Fields read by the shipped nano: whatever it answers fits the schema, and probabilities are what they are called."""

import jsonschema
import numpy as np
import pytest

import handlens
from handlens.core.sampling import log_softmax
from handlens.errors import ImageError, SettingError
from handlens.fields.answers import Fields, fields_to_json
from handlens.fields.calibration import Calibration, PlattLine
from handlens.fields.forms import NOT_PRESENT
from handlens.fields.read import read_fields
from handlens.fields.reading import Reader
from handlens.fields.schema import fields_of

SCHEMA = {
    "type": "object",
    "properties": {
        "total": {"type": "number", "minimum": 0},
        "shop": {"type": "string", "maxLength": 12},
        "paid": {"type": "boolean"},
        "currency": {"enum": ["EUR", "USD", "GBP"]},
        "table": {"type": "object", "properties": {"number": {"type": "integer", "minimum": 1, "maximum": 40}}},
    },
}


@pytest.fixture(scope="module")
def model():
    with handlens.load("nano", keep=True) as model:
        yield model


@pytest.fixture(scope="module")
def picture():
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (300, 220), "white")
    ImageDraw.Draw(image).text((160, 120), "Total $12.50", fill="black", font_size=20)
    return image


@pytest.fixture(scope="module")
def found(model, picture) -> Fields:
    return model.fields(picture, SCHEMA)


def test_every_answer_fits_its_field_and_lies_on_the_picture(found):
    value = {key: one for key, one in found.value.items() if one is not None and key != "table"}
    jsonschema.validate(value, SCHEMA)
    assert found["table.number"].value is None or 1 <= found["table.number"].value <= 40
    for one in found.answers:
        assert 0 <= one.probability <= 1
        assert one.confidence + one.not_present <= 1 + 1e-9 if one.is_present else one.confidence == one.not_present
        assert (one.box is None) == (one.value is None) == (one.text == NOT_PRESENT)
        if one.box:
            left, top, right, bottom = one.box
            assert 0 <= left < right <= 300
            assert 0 <= top < bottom <= 220
            assert one.slice.slice in (1, 2)  # 66,000 px of 224x224: two slices side by side


def test_json_says_everything_once(found):
    report = fields_to_json(found)
    assert list(report["fields"]) == ["total", "shop", "paid", "currency", "table.number"]
    assert set(report["missing"]) == {name for name, one in report["fields"].items() if one["answer"] == NOT_PRESENT}
    assert report["value"]["table"].keys() == {"number"}


def test_no_second_look_and_no_places_where_none_are_wanted(model, picture, found):
    quick = model.fields(picture, SCHEMA, find=False, look_again_below=0)
    assert {one.looks for one in quick.answers} == {1}
    assert {one.box for one in quick.answers} == {None}
    sure = Calibration(lines={"value": PlattLine(0, 20), "absent": PlattLine(0, 20)})
    assert {one.looks for one in read_fields(model, picture, SCHEMA, calibration=sure).answers} == {1}
    again = model.fields(picture, SCHEMA, look_again_below=1.0)
    assert {one.looks for one in again.answers} == {2}
    assert [one.case.partition("/")[0] for one in again.answers] == [
        "value" if one.is_present else "absent" for one in again.answers
    ]


def test_a_model_that_is_not_held_is_released(picture):
    model = handlens.load("nano")
    model.fields(picture, {"properties": {"total": {"type": "number"}}})
    assert not model.answerer.keep
    assert model.answerer._language is None
    assert model.answerer._vision is None


def test_probability_is_a_share_of_what_the_form_allows(model):
    # After 'a' only the end is allowed, so P('a' | form) is p(a) over the p of all allowed first tokens.
    (field,) = fields_of({"properties": {"letter": {"enum": ["a", "b"]}}})
    reader, tokenizer = Reader(model), model.tokenizer
    constraint = reader._constraint(field.form)
    rng = np.random.default_rng(1)
    rows = [log_softmax(rng.normal(size=tokenizer.vocab_size)) for _ in range(2)]
    (letter,) = tokenizer.encode("a").tolist()
    said = [tokenizer.bytes_of(token) for token in range(tokenizer.vocab_size)]
    begins = {b"a", b"b", *(NOT_PRESENT[:end].encode() for end in range(1, 12))}
    first = [token for token, piece in enumerate(said) if piece in begins]
    logprob, mass = reader._under_form(constraint, rows, [letter])
    expected = np.exp(rows[0][letter]) / np.exp(rows[0][first]).sum()
    assert np.exp(logprob) == pytest.approx(expected)
    assert np.exp(mass) == pytest.approx(np.exp(rows[0][first]).sum())


def test_what_cannot_be_read(model, picture):
    with pytest.raises(ImageError, match=r"nowhere\.png"):
        model.fields("nowhere.png", SCHEMA)
    with pytest.raises(SettingError, match="look_again_below is 2"):
        model.fields(picture, SCHEMA, look_again_below=2)
    with pytest.raises(SettingError, match="names no fields"):
        model.fields(picture, {"type": "object"})
