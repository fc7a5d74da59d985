"""Handlens-Bench: frozen, balanced, answerable; its rules by hand; and whether training has seen it."""

from collections import Counter

import pytest
from PIL import Image

from handlens.data.records import Record, Turn
from handlens.errors import DataError
from handlens.eval import bench, leakage
from handlens.eval.bench import rules
from handlens.eval.bench.parts import PARTS
from handlens.eval.runner import load_items, run_task
from handlens.eval.tasks import known_tasks

TASK = known_tasks()["handlens-bench"]


@pytest.fixture(scope="module")
def items():
    return load_items(TASK, None)[0]


def test_the_suite_is_the_frozen_one(items, tmp_path, monkeypatch):
    assert bench.suite_hash() == bench.SHA256 == TASK.version()
    assert Counter(item.category for item in items) == {part.name: part.count for part in PARTS}
    assert len({item.id for item in items}) == len(items)
    broken = tmp_path / "suite.zip"
    broken.write_bytes(bench.FILE.read_bytes()[:-1])
    monkeypatch.setattr(bench, "FILE", broken)
    bench.suite_hash.cache_clear()
    with pytest.raises(DataError, match="is not the frozen suite"):
        bench.suite_hash()
    bench.suite_hash.cache_clear()


def test_every_true_answer_earns_full_marks_and_no_lazy_one_much(items):
    assert all(TASK.mark(item, item.truth[0]).score == 1.0 for item in items)
    for lazy in ("", "yes", "no", "not present", "4", "red"):
        marks = [(item.category, TASK.mark(item, lazy).score) for item in items]
        parts = {name: [score for part, score in marks if part == name] for name, _ in marks}
        mean = sum(sum(scores) / len(scores) for scores in parts.values()) / len(parts)
        assert mean < 0.12, lazy
        # Yes and no are equally often true.
        assert sum(parts["presence"]) / len(parts["presence"]) in (0.0, 0.5)


def test_reading_by_size_asks_for_the_same_lines(items):
    by_part = {name: [item.truth for item in items if item.category == name] for name in ("read-tiny", "read-large")}
    assert by_part["read-tiny"] == by_part["read-large"]


def test_pictures_have_the_shape_of_their_part(items):
    for item in items:
        (picture,) = item.pictures
        ratio = picture.image.width / picture.image.height
        assert item.category != "wide" or ratio > 7
        assert item.category != "tall" or ratio < 1 / 6


@pytest.mark.parametrize(
    ("rule", "answer", "truth", "score"),
    [
        ("text", "abcd", "abcd", 1.0),
        ("text", "abxd", "abcd", 0.75),
        ("text", "ab\ncd ", "ab cd", 1.0),
        ("text", "x" * 100_000, "abcd", 0.0),
        ("short", "It is $23.50.", "$23.50", 1.0),
        ("short", "23.505", "23.50", 0.0),
        ("short", "red " * 100 + "blue", "blue", 0.0),
        ("short", "それは赤です", "赤", 1.0),
        ("number", "three", "3", 1.0),
        ("number", "between 3 and 4", "3", 0.0),
        ("yes_no", "No, there is none.", "no", 1.0),
        ("yes_no", "yes or no", "no", 0.0),
        # 2 rows of 2: one of four cells is wrong.
        ("markdown", "| a | b |\n| --- | --- |\n| 1 | 3 |", "| a | b |\n| --- | --- |\n| 1 | 2 |", 0.75),
        # A row too many: 4 right cells of 6.
        ("markdown", "Here:\n|a|b|\n|-|-|\n|1|2|\n|9|9|", "| a | b |\n| --- | --- |\n| 1 | 2 |", 4 / 6),
        ("refusal", "The receipt does not show a tip.", "not present", 1.0),
        ("refusal", "No.", "not present", 1.0),
        ("refusal", "Notebook", "not present", 0.0),
        ("refusal", "12.50", "not present", 0.0),
    ],
)
def test_rules_by_hand(rule, answer, truth, score):
    assert rules.RULES[rule](answer, truth) == pytest.approx(score)


def test_a_run_of_one_that_knows(scripted, items):
    truth = {item.id: item.truth[0] for item in items}
    few = items[::9]
    result = run_task(scripted(lambda question, name: truth[name]), TASK, TASK.recipes[0], few)
    assert result.value == 100.0
    assert result.settings["data"] == {"suite": bench.SHA256}
    assert result.figures["group reading"] == 100.0
    assert result.figures["wrongly_denied"] == 0.0
    denying = run_task(scripted(lambda question, name: "not present"), TASK, TASK.recipes[0], few)
    assert denying.figures["refusal"] == 100.0
    assert denying.figures["wrongly_denied"] == 100.0


def record(picture: Image.Image, question: str = "?", answer: str = "-") -> Record:
    return Record(
        key="k", kind="lines", split="train", language="en", picture=picture, lines=(), things=(), table=None,
        turns=(Turn(task="t", question=question, answer=answer),), facts={}, seed=1, licence="CC0-1.0", source="test",
    )  # fmt: skip


def test_leaks_are_found_and_strangers_are_none(items):
    stolen = next(item for item in items if item.category == "fields").pictures[0].image
    brighter = stolen.point(lambda value: min(255, value + 3))
    told = next(item for item in items if len(item.truth[0]) >= leakage.SHORTEST)
    stranger = Image.effect_noise((200, 160), 90).convert("RGB")
    found = leakage.compare_records(
        [record(stolen), record(brighter), record(stranger, told.question, told.truth[0])], "here"
    )
    assert found["records"] == 3
    assert found["same_picture"] == 1
    assert found["near_picture"] >= 1
    assert found["same_question_and_answer"] == 1
    clean = leakage.compare_records([record(stranger)], "here")
    assert (clean["same_picture"], clean["near_picture"], clean["same_question_and_answer"]) == (0, 0, 0)
    with pytest.raises(DataError, match="holds no training record"):
        leakage.compare_records([], "here")
