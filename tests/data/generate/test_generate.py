"""What holds for every generated picture, whatever its kind."""

import re
from itertools import pairwise

import numpy as np
import pytest

from handlens.data.generate import KINDS, MIXTURE, WHOLE_TASKS, generate
from handlens.data.generate.words import is_heldout
from handlens.data.records import Record
from handlens.errors import DataError

PRINTED = ("lines", "receipts", "labels", "tables")
DRAWN = (*PRINTED, "scenes")


def some(kind: str, count: int, split: str = "train", level: float = 1.0) -> list[Record]:
    return [generate(kind, 11, index, split=split, level=level) for index in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_same_arguments_give_the_same_record(kind: str) -> None:
    for index in range(4):
        first, second = generate(kind, 3, index), generate(kind, 3, index)
        assert first.picture.tobytes() == second.picture.tobytes()
        assert (first.lines, first.things, first.table) == (second.lines, second.things, second.table)
        assert (first.turns, first.facts, first.key) == (second.turns, second.facts, second.key)


@pytest.mark.parametrize("kind", KINDS)
def test_every_argument_counts(kind: str) -> None:
    base = generate(kind, 3, 5).picture.tobytes()
    assert generate(kind, 4, 5).picture.tobytes() != base
    assert generate(kind, 3, 6).picture.tobytes() != base
    assert generate(kind, 3, 5, split="validation").picture.tobytes() != base


@pytest.mark.parametrize("kind", DRAWN)
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_glyphs_and_things_lie_inside_the_picture(kind: str, level: float) -> None:
    for record in some(kind, 20, level=level):
        assert record.picture.mode == "RGB"
        width, height = record.picture.size
        boxes = [glyph.box for line in record.lines for glyph in line.glyphs]
        boxes += [thing.box for thing in record.things]
        assert boxes
        for x0, y0, x1, y1 in boxes:
            assert -0.5 <= x0 < x1 <= width + 0.5, record.key
            assert -0.5 <= y0 < y1 <= height + 0.5, record.key


@pytest.mark.parametrize("kind", PRINTED)
def test_glyphs_spell_their_line_from_left_to_right(kind: str) -> None:
    for record in some(kind, 20):
        for line in record.lines:
            assert "".join(glyph.char for glyph in line.glyphs) == line.text
            middles = [(g.box[0] + g.box[2]) / 2 for g in line.glyphs]
            assert all(b > a - 0.5 for a, b in pairwise(middles)), (record.key, line.text)


@pytest.mark.parametrize("kind", PRINTED)
def test_glyph_boxes_hold_the_ink(kind: str) -> None:
    """On clean pictures the middle of the ink is not the colour of the paper beside it."""
    for record in some(kind, 15, level=0.0):
        grey = np.asarray(record.picture.convert("L")).astype(int)
        for line in record.lines:
            for glyph in line.glyphs:
                x0, y0, x1, y1 = (round(v) for v in glyph.box)
                spread = np.ptp(grey[max(0, y0 - 1) : y1 + 1, max(0, x0 - 1) : x1 + 1])
                if glyph.char != " ":
                    assert spread > 60, (record.key, glyph)


@pytest.mark.parametrize("kind", PRINTED)
def test_training_pictures_print_no_heldout_word(kind: str) -> None:
    for record in some(kind, 30):
        for line in record.lines:
            letters = re.findall(r"[^\W\d_]+", line.text)
            assert [word for word in letters if is_heldout(word)] == []


@pytest.mark.parametrize("kind", PRINTED)
def test_heldout_pictures_print_no_training_word(kind: str) -> None:
    """Words of four letters and more are held out or belong to the layout; lines are mostly new."""
    heldout = common = 0
    for record in some(kind, 30, split="heldout"):
        for line in record.lines:
            for word in re.findall(r"[^\W\d_]{4,}", line.text):
                heldout += is_heldout(word)
                common += not is_heldout(word)
    assert heldout > (3 * common if kind == "lines" else 0.3 * common)


@pytest.mark.parametrize("kind", DRAWN)
def test_tasks_belong_to_the_kind_and_questions_are_asked(kind: str) -> None:
    for record in some(kind, 20):
        assert record.turns
        assert record.kind == kind
        for turn in record.turns:
            assert turn.task.startswith(f"{kind}.")
            assert turn.question.strip()
            assert turn.answer == turn.answer.strip() != ""
            assert "{" not in turn.question or kind == "lines"


@pytest.mark.parametrize("kind", DRAWN)
def test_every_task_has_at_least_five_wordings(kind: str) -> None:
    """Names are taken out of a question by dropping what the picture or its answers supply."""
    seen: dict[str, set[str]] = {}
    asked: dict[str, int] = {}
    for record in some(kind, 120, level=0.0):
        for turn in record.turns:
            seen.setdefault(turn.task, set()).add(turn.question)
            asked[turn.task] = asked.get(turn.task, 0) + 1
    often = {task: len(seen[task]) for task, count in asked.items() if count >= 25}
    assert often
    assert all(count >= 5 for count in often.values()), often


def test_a_quarter_of_the_pictures_is_clean_at_full_level() -> None:
    clean = [record.facts["clean"] for record in some("mixed", 150)]
    assert 0.11 < sum(clean) / len(clean) < 0.39  # 150 coins: 0.25 +- 4 standard deviations


def test_level_zero_is_always_clean() -> None:
    assert all(record.facts["clean"] for record in some("mixed", 30, level=0.0))


@pytest.mark.parametrize("kind", KINDS)
def test_more_questions_are_asked_about_the_same_picture(kind: str) -> None:
    for index in range(4):
        few, many = generate(kind, 5, index), generate(kind, 5, index, turns=9)
        assert many.picture.tobytes() == few.picture.tobytes()
        assert many.turns[: len(few.turns)] == few.turns
        assert len(few.turns) <= len(many.turns)
        added = many.turns[len(few.turns) :]
        for number, turn in enumerate(added, start=len(few.turns)):
            before = [other for other in many.turns[:number] if other.task == turn.task]
            assert turn.question not in [other.question for other in before]
            assert not (before and turn.task.endswith(WHOLE_TASKS))
            if kind != "scenes" and len(turn.answer) > 3:
                assert turn.answer not in [other.answer for other in before]


def test_scenes_have_as_many_questions_as_are_wanted() -> None:
    assert all(len(generate("scenes", 6, index, turns=8).turns) >= 8 for index in range(20))


def test_mixture_draws_its_shares() -> None:
    kinds = [record.kind for record in some("mixed", 120, level=0.0)]
    for kind, share in MIXTURE.items():
        # Four standard deviations of 120 draws.
        assert abs(kinds.count(kind) / 120 - share / 100) < 4 * (share / 100 * (1 - share / 100) / 120) ** 0.5


def test_keys_are_unique_across_kinds_and_splits() -> None:
    records = [generate(k, 1, i, split=s) for k in ("mixed", "lines") for i in (1, 11) for s in ("train", "heldout")]
    assert len({record.key for record in records}) == len(records)


def test_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(DataError, match="unknown kind 'recipts'; did you mean 'receipts'"):
        generate("recipts", 1, 1)


def test_unknown_split_and_level_are_refused() -> None:
    with pytest.raises(DataError, match="unknown split 'test'; known: heldout, train, validation"):
        generate("lines", 1, 1, split="test")
    with pytest.raises(DataError, match=r"level is 1\.5; needed is 0"):
        generate("lines", 1, 1, level=1.5)
