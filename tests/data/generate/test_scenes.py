"""Every answer about a scene is worked out again from its things."""

import re
from collections import Counter

import numpy as np
import pytest

from handlens.data.generate import generate
from handlens.data.generate.scene_talk import COLOURS, SHAPES, describe, place, plural
from handlens.data.records import Record, Thing

SIDES = {"left of": (0, 1), "right of": (0, -1), "above": (1, 1), "below": (1, -1)}


@pytest.fixture(scope="module")
def scenes() -> list[Record]:
    return [generate("scenes", 21, index, level=level) for level in (0.0, 1.0) for index in range(150)]


def middle(thing: Thing) -> tuple[float, float]:
    return (thing.box[0] + thing.box[2]) / 2, (thing.box[1] + thing.box[3]) / 2


def named(things: tuple[Thing, ...], name: str) -> list[Thing]:
    """Things called by colour, shape, both, or ``shapes``."""
    words = {plural(shape): shape for shape in SHAPES} | {shape: shape for shape in SHAPES}
    parts = [words.get(part, part) for part in name.split() if part not in ("shapes", "shape", "thing")]
    assert all(part in SHAPES + COLOURS for part in parts), name
    return [t for t in things if all(part in (t.shape, t.colour) for part in parts)]


def name_in(question: str) -> str:
    """The first colour and shape words of a question, in order."""
    words = [*SHAPES, *map(plural, SHAPES), *COLOURS, "shapes"]
    return " ".join(w for w in re.findall(r"[a-z]+", question) if w in words)


def turns(scenes: list[Record], task: str) -> list[tuple[Record, str, str]]:
    found = [(r, t.question, t.answer) for r in scenes for t in r.turns if t.task == task]
    assert len(found) > 40, task
    return found


def test_colour_and_shape_answers(scenes: list[Record]) -> None:
    for record, question, answer in turns(scenes, "scenes.colour"):
        (thing,) = named(record.things, name_in(question.split("'")[0]))
        assert thing.colour == answer
    for record, question, answer in turns(scenes, "scenes.shape"):
        (thing,) = named(record.things, name_in(question))
        assert thing.shape == answer


def test_counts(scenes: list[Record]) -> None:
    for record, question, answer in turns(scenes, "scenes.count"):
        assert len(named(record.things, name_in(question))) == int(answer), question
    answers = Counter(answer for _, _, answer in turns(scenes, "scenes.count"))
    assert set(answers) >= {"0", "1", "2", "3", "4", "5"}
    assert answers.most_common(1)[0][1] < 0.5 * answers.total()


def test_existence_is_true_and_balanced(scenes: list[Record]) -> None:
    answers = Counter()
    for record, question, answer in turns(scenes, "scenes.exists"):
        is_there = bool(named(record.things, name_in(question)))
        assert answer == ("yes" if is_there else "no"), question
        answers[answer] += 1
    # a fair coin: four standard deviations
    assert abs(answers["yes"] - answers["no"]) < 4 * answers.total() ** 0.5


def test_absent_things_share_a_colour_or_a_shape(scenes: list[Record]) -> None:
    absent = [(r, q) for r, q, a in turns(scenes, "scenes.exists") if a == "no"]
    near = 0
    for record, question in absent:
        colour, shape = name_in(question).split()
        near += any(colour == t.colour or shape == t.shape for t in record.things)
    assert near > 0.8 * len(absent)


def test_places_and_sides(scenes: list[Record]) -> None:
    answers = Counter()
    for record, question, answer in turns(scenes, "scenes.where"):
        side = next((s for s in SIDES if f" {s} " in question), None)
        if side is None:
            (thing,) = named(record.things, name_in(question))
            assert place(thing, *record.picture.size) == answer
            continue
        axis, sign = SIDES[side]
        before, after = question.split(f" {side} ")
        (anchor,) = named(record.things, name_in(after))
        if answer in ("yes", "no"):
            (thing,) = named(record.things, name_in(before))
            is_so = sign * (middle(anchor)[axis] - middle(thing)[axis]) > 0
            assert answer == ("yes" if is_so else "no"), question
            answers[answer] += 1
        else:
            there = [t for t in record.things if sign * (middle(anchor)[axis] - middle(t)[axis]) > 5 and t != anchor]
            assert [f"{t.colour} {t.shape}" for t in there] == [answer], question
    assert min(answers.values()) > 0.25 * answers.total()


def test_descriptions_name_everything(scenes: list[Record]) -> None:
    for record, _, answer in turns(scenes, "scenes.describe"):
        parts = answer.removesuffix(".").lower().split(", ")
        said = Counter(tuple(part.split()[1:4]) for part in parts)
        assert said == Counter((t.size, t.colour, t.shape) for t in record.things)


def test_description_by_hand() -> None:
    things = (
        Thing(shape="star", colour="red", size="small", box=(80.0, 80.0, 100.0, 100.0)),
        Thing(shape="ring", colour="blue", size="large", box=(0.0, 0.0, 30.0, 30.0)),
        Thing(shape="cross", colour="gray", size="large", box=(40.0, 40.0, 60.0, 60.0)),
    )
    # thirds of 100 px end at 33 and 67: (15, 15) is top left, (50, 50) the center, (90, 90) bottom right
    assert describe(things, 100, 100) == (
        "A large blue ring at the top left, a large gray cross at the center, a small red star at the bottom right."
    )


def test_things_have_their_colour_on_clean_pictures() -> None:
    """The middle pixel of a filled shape is nearer to its own colour than to any other."""
    from handlens.data.generate.scenes import _RGB

    for index in range(60):
        record = generate("scenes", 22, index, level=0.0)
        pixels = np.asarray(record.picture).astype(float)
        for thing in record.things:
            if thing.shape == "ring":
                continue
            x, y = (round(v) for v in middle(thing))
            near = min(_RGB, key=lambda name, at=pixels[y, x]: float(np.abs(at - _RGB[name]).sum()))
            assert near == thing.colour, record.key


def test_small_things_are_smaller_than_large_ones(scenes: list[Record]) -> None:
    for record in scenes:
        span = {size: [t.box[3] - t.box[1] for t in record.things if t.size == size] for size in ("small", "large")}
        if span["small"] and span["large"]:
            assert max(span["small"]) < min(span["large"])


def test_no_task_is_asked_twice(scenes: list[Record]) -> None:
    for record in scenes:
        tasks = [turn.task for turn in record.turns]
        assert 2 <= len(tasks) == len(set(tasks))
