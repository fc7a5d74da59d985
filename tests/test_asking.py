"""The Python API on the shipped nano: what is opened, encoded once, and said."""

import json

import numpy as np
import pytest
from PIL import Image

import handlens
from handlens.asking import Model
from handlens.core.sampling import Sampling
from handlens.core.sight import sight_to_json
from handlens.errors import ImageError, SettingError

SHORT = Sampling(max_tokens=5)


@pytest.fixture(scope="module")
def model() -> Model:
    return handlens.load("nano", keep=True)


@pytest.fixture
def red() -> Image.Image:
    return Image.new("RGB", (300, 200), "red")


def counted(model: Model, monkeypatch) -> list[int]:
    """Count the pictures that are encoded."""
    seen: list[int] = []
    original = model.answerer.see
    monkeypatch.setattr(
        model.answerer, "see", lambda images, **more: seen.append(len(images)) or original(images, **more)
    )
    return seen


def test_every_kind_of_picture_gives_the_same_answer(model, red, tmp_path):
    file = tmp_path / "red.png"
    red.save(file)
    kinds = [file, str(file), file.read_bytes(), red, np.asarray(red), [red]]
    answers = {str(model.ask(kind, "What colour is it?", max_tokens=5)) for kind in kinds}
    assert len(answers) == 1
    for kind in (np.zeros((3, 4, 5), np.uint8), np.zeros((4, 5, 3), np.float32)):
        with pytest.raises(ImageError, match=r"give uint8 \(height, width, 3\)"):
            model.ask(kind, "What?")


def test_look_once_and_ask_many_times_encodes_once(model, red, monkeypatch):
    counts = counted(model, monkeypatch)
    seen = model.look(red)
    first, again = (
        model.ask(seen, "What colour is it?", max_tokens=5),
        model.ask(seen, "What colour is it?", max_tokens=5),
    )
    assert str(first) == str(again)
    assert "".join(model.stream(seen, "What colour is it?", sampling=SHORT)) == str(first)
    assert counts == [1]
    assert list(model.batch([(red, "A?"), (red, "B?"), (seen, "C?")], sampling=SHORT))[2].seen.pictures == seen.pictures
    assert counts == [1, 1]


def test_a_conversation_encodes_each_picture_once_and_remembers(model, red, tmp_path, monkeypatch):
    counts = counted(model, monkeypatch)
    conversation = model.chat(red)
    conversation.sampling = SHORT
    conversation.ask("What colour is it?")
    conversation.show(Image.new("RGB", (300, 200), "blue"))
    "".join(conversation.stream("And this one?"))
    assert counts == [1, 1]
    assert [len(turn.content) for turn in conversation.turns] == [2, 1, 2, 1]
    stream = conversation.stream("Never read to its end")
    next(stream)
    stream.close()
    assert len(conversation.turns) == 4
    conversation.save(tmp_path / "talk.json")
    saved = json.loads((tmp_path / "talk.json").read_text())
    assert saved["turns"][2]["content"][0] == {"type": "picture", "name": "picture"}
    conversation.save(tmp_path / "talk.md")
    assert (tmp_path / "talk.md").read_text().startswith("**You**: [picture]\n\nWhat colour is it?")
    with pytest.raises(SettingError, match="cannot write"):
        conversation.save(tmp_path / "none" / "talk.md")


def test_a_schema_gives_a_value(model, red):
    schema = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}
    assert model.ask(red, "What colour is it?", schema=schema).value["colour"] in ("red", "blue")
    with pytest.raises(SettingError, match="the shortest answer to this schema has 16 bytes, but max_tokens is 3"):
        model.ask(red, "What colour is it?", schema=schema, max_tokens=3)


def test_no_picture_and_many(model, red):
    assert model.ask([], "Hello?", max_tokens=3).seen.pictures == ()
    assert len(model.ask([red, red], "Same?", max_tokens=3).seen.pictures) == 2


def test_sight_is_known_before_anything_is_encoded(model, red, monkeypatch):
    counts = counted(model, monkeypatch)
    facts = sight_to_json(model.sight(red))
    assert (facts["width"], facts["grid"], facts["warning"]) == (300, [2, 1], None)
    assert counts == []
