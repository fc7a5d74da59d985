"""Sampling: every answer is the one its seed gives alone, nothing is asked twice, and failures are written down."""

import json
import pickle
from dataclasses import replace

import pytest
from PIL import Image

import handlens
from handlens.align.asks import Ask, Drawn, Stored, drawn_asks, read_asks, seed_of
from handlens.align.conquer import JudgeOne, conquer
from handlens.align.divide import DivideOne, divide_all
from handlens.align.journal import Journal
from handlens.align.sample import HowToSample, SampleOne, answer_all, sample, sample_groups, sample_one
from handlens.core.chat import ask
from handlens.core.images import Picture
from handlens.errors import DataError, ModelError, SettingError
from handlens.model.halves import open_torch

HOW = HowToSample(num_answers=4, temperature=1.5, max_tokens=12)


def scene(number: int = 3) -> Ask:
    picture = Drawn(kind="scenes", seed=1, index=number, split="train", level=0.0)
    return Ask(id=f"scene-{number}", question="What do you see?", picture=picture)


def test_answers_side_by_side_are_those_of_their_seeds():
    lens = open_torch(handlens.PACKAGED["nano"])  # llama.cpp rounds a batch of four otherwise than one
    shown = scene()
    seen = lens.see([shown.picture.open()])
    samplings = HOW.samplings(shown.id)
    together = answer_all(lens, ask(shown.question), seen, samplings)
    alone = [list(lens.answer(ask(shown.question), seen, sampling)) for sampling in samplings]
    assert [[token.id for token in one] for one in together] == [[token.id for token in one] for one in alone]
    assert len({tuple(token.id for token in one) for one in together}) > 1
    for one, other in zip(together, alone, strict=True):
        assert [token.logprob for token in one] == pytest.approx([token.logprob for token in other], abs=1e-3)


def test_questions_answered_together_have_the_answers_of_their_seeds(monkeypatch):
    lens = open_torch(handlens.PACKAGED["nano"])
    # Prompts of different length are computed together, and then one alone.
    asks = [scene(3), replace(scene(4), question="Describe the picture, all of it."), scene(5)]
    how = replace(HOW, num_answers=2)
    monkeypatch.setattr("handlens.align.sample.TOGETHER", 2)
    rows = list(sample_groups(lens, asks, how))
    assert [row["id"] for row in rows] == [one.id for one in asks]
    for one, row in zip(asks, rows, strict=True):
        alone = sample_one(lens, one, how)
        assert [told["text"] for told in row["answers"]] == [told["text"] for told in alone["answers"]]
        for told, expected in zip(row["answers"], alone["answers"], strict=True):
            assert told["logprob"] == pytest.approx(expected["logprob"], abs=1e-3)
            assert (told["seed"], told["tokens"]) == (expected["seed"], expected["tokens"])


def test_one_picture_that_vanished_leaves_the_others_of_its_group(tmp_path):
    lens = open_torch(handlens.PACKAGED["nano"])
    gone = Ask(id="gone", question="What?", picture=Stored(name="gone.png", path=tmp_path / "gone.png"))
    rows = list(sample_groups(lens, [scene(), gone], replace(HOW, num_answers=2, max_tokens=3)))
    assert [(row["id"], row["status"], len(row["answers"])) for row in rows] == [
        ("scene-3", "ok", 2), ("gone", "no_picture", 0),
    ]  # fmt: skip


def test_rules_change_words_of_the_true_answer():
    drawn = next(iter(drawn_asks(1, level=0.0)))
    answers = sample_one_by_rules(drawn)
    assert answers == sample_one_by_rules(drawn) and len({*answers, drawn.reference}) > 2
    assert all(len(answer.split()) == len(drawn.reference.split()) for answer in answers)


def sample_one_by_rules(one: Ask) -> list[str]:
    return [answer["text"] for answer in SampleOne("rules", HOW)(one)["answers"]]


def test_the_picture_is_encoded_once_and_seeds_are_written_down(known):
    model = known(say=lambda question, sampling: f"answer {sampling.seed}")
    row = sample_one(model, scene(), HOW)
    assert model.looks == 1 and row["status"] == "ok"
    seeds = [answer["seed"] for answer in row["answers"]]
    assert seeds == [seed_of("sample", 1, "scene-3", number) for number in range(4)] and len(set(seeds)) == 4
    assert [answer["text"] for answer in row["answers"]] == [f"answer {seed}" for seed in seeds]
    assert sample_one(model, scene(), HOW) == row


def test_a_picture_that_vanished_and_an_answerer_that_fails_are_told(known, tmp_path):
    gone = Ask(id="gone", question="What?", picture=Stored(name="gone.png", path=tmp_path / "gone.png"))
    assert sample_one(known(), gone, HOW)["status"] == "no_picture"
    calls = []

    def fail(question, sampling):
        calls.append(question)
        raise ModelError("cannot reach http://nowhere (timed out)")

    row = sample_one(known(say=fail), scene(), HOW)
    assert (row["status"], row["note"], row["answers"], len(calls)) == (
        "failed", "cannot reach http://nowhere (timed out)", [], 3,
    )  # fmt: skip


def test_a_run_goes_on_where_it_was_cut(tmp_path, monkeypatch, known):
    asked = []

    def say(question, sampling):
        asked.append(sampling.seed)
        return "A red ring."

    monkeypatch.setattr("handlens.align.sample.open_policy", lambda model: known(say=say))
    file, asks = tmp_path / "answers.jsonl", [scene(1), scene(2)]
    assert sample(asks, "known", HOW, Journal(file, {"seed": 1})) == {"ok": 2}
    whole = file.read_bytes()
    file.write_bytes(whole[:-30])  # a kill in the middle of the last line
    asked.clear()
    assert sample(asks, "known", HOW, Journal(file, {"seed": 1})) == {"ok": 2}
    assert file.read_bytes() == whole and len(asked) == 4
    assert sample(asks, "known", HOW, Journal(file, {"seed": 1})) == {"ok": 2} and len(asked) == 4
    with pytest.raises(SettingError, match=r"was made with seed 1, now it is 2; give another --out"):
        Journal(file, {"seed": 2})
    file.write_text("nonsense\n")
    with pytest.raises(DataError, match=r"answers.jsonl is damaged; move it away"):
        Journal(file, {"seed": 1})


def test_a_model_that_died_stops_the_run_and_is_asked_again_later(tmp_path, monkeypatch, known):
    def fail(question, sampling):
        raise ModelError("cannot reach http://nowhere (refused)")

    monkeypatch.setattr("handlens.align.sample.open_policy", lambda model: known(say=fail))
    asks = [scene(number) for number in range(30)]
    file = tmp_path / "answers.jsonl"
    with pytest.raises(ModelError, match="20 questions failed one after the other"):
        sample(asks, "known", HOW, Journal(file, {}))
    monkeypatch.setattr("handlens.align.sample.open_policy", lambda model: known(say=lambda *_: "A red ring."))
    assert sample(asks, "known", HOW, Journal(file, {})) == {"ok": 30}


def test_questions_about_drawn_and_stored_pictures(tmp_path):
    drawn = list(drawn_asks(3, kinds=("scenes", "labels"), level=0.0))
    assert [one.picture.record().key for one in drawn] == [one.id for one in drawn]
    assert drawn[0].question == "Describe the picture." and drawn[0].reference.endswith(".")
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    talk = [{"role": "user", "content": "<image>\nWhat?"}, {"role": "assistant", "content": "red"}]
    (tmp_path / "data.json").write_text(json.dumps([{"id": "one", "image": "a.png", "conversations": talk}]))
    (one,) = read_asks(tmp_path / "data.json")
    assert (one.id, one.question, one.reference) == ("one", "What?", "red")
    assert isinstance(one.picture.open(), Picture) and one.picture.record() is None


@pytest.mark.parametrize(("field", "value"), [("num_answers", 1), ("temperature", 0.0)])
def test_answers_that_cannot_differ_are_refused(field, value):
    with pytest.raises(SettingError):
        HowToSample(**{field: value})


def test_work_travels_to_other_processes():
    asks = {"scene-3": scene()}
    for work in (SampleOne("nano", HOW), DivideOne("rules"), JudgeOne("truth", asks)):
        assert pickle.loads(pickle.dumps(work)) == work


@pytest.mark.soak
def test_a_cluster_gives_the_same_answers(tmp_path):
    asks = [scene(number) for number in range(4)]
    here, there = (Journal(tmp_path / name, {}) for name in ("here.jsonl", "there.jsonl"))
    sample(asks, "rules", HOW, here)
    sample(asks, "rules", HOW, there, engine="ray", jobs=2)
    assert here.rows == there.rows
    claims = [Journal(tmp_path / f"claims-{name}.jsonl", {}) for name in ("here", "there")]
    assert divide_all(here.rows.values(), "rules", claims[0]) == divide_all(
        there.rows.values(), "rules", claims[1], engine="ray", jobs=2
    )
    verdicts = [Journal(tmp_path / f"verdicts-{name}.jsonl", {}) for name in ("here", "there")]
    known = {one.id: one for one in asks}
    assert conquer(claims[0].rows.values(), known, "truth", verdicts[0]) == conquer(
        claims[1].rows.values(), known, "truth", verdicts[1], engine="ray", jobs=2
    )
