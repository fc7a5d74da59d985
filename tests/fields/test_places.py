"""The slice that alone makes an answer likeliest is the place, and boxes stay on the picture."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlens.answerer import Seen, SeenPicture
from handlens.core.slicing import plan_slices
from handlens.fields.forms import NOT_PRESENT
from handlens.fields.places import boxes_of, find_places, inside, widened
from handlens.fields.schema import fields_of

(FIELD,) = fields_of({"properties": {"total": {"type": "string"}}})


class Letters:
    """A reader who knows what stands in each slice by its single visual number."""

    def __init__(self, texts: dict[int, str]) -> None:
        self.texts = texts

    def scores(self, field, seen, answers):
        (number,) = seen.pictures[0].visual_tokens.ravel()
        here = self.texts.get(int(number))
        return [math.log(0.9 if here == answer or (answer == NOT_PRESENT and not here) else 0.02) for answer in answers]


def seen_as_numbers(width: int, height: int) -> Seen:
    plan = plan_slices(width, height, side_px=224)
    numbers = np.arange(plan.num_slices, dtype=np.float32).reshape(-1, 1, 1)
    return Seen(pictures=(SeenPicture(name="p", plan=plan, visual_tokens=numbers),))


def test_the_slice_that_shows_the_answer_is_named():
    seen = seen_as_numbers(600, 400)  # 240,000 px of 224x224: 5 wanted; 3x2 is nearest to 1.5
    reader = Letters({5: "12.50"})
    found, absent = find_places(reader, seen, [(FIELD, "12.50"), (FIELD, NOT_PRESENT)])
    assert (found.slice.slice, found.slice.row, found.slice.column) == (5, 1, 1)
    assert found.box == (200, 200, 400, 400)
    assert found.share == pytest.approx(0.9 / (0.9 + 5 * 0.02))
    assert absent.slice.slice == 5  # where "not present" is denied most


def test_a_picture_without_a_grid_is_its_own_place():
    (found,) = find_places(Letters({}), seen_as_numbers(100, 80), [(FIELD, "x")])
    assert (found.slice.slice, found.box, found.share) == (0, (0, 0, 100, 80), 1.0)


@given(st.integers(10, 3000), st.integers(10, 3000))
def test_boxes_cover_the_picture_and_stay_on_it(width, height):
    plan = plan_slices(width, height, side_px=224)
    boxes = boxes_of(plan)
    assert sum((right - left) * (bottom - top) for left, top, right, bottom in boxes) == width * height
    for box in boxes:
        wide = widened(box, plan)
        assert 0 <= wide[0] <= box[0] <= box[2] <= wide[2] <= width
        assert 0 <= wide[1] <= box[1] <= box[3] <= wide[3] <= height
        whole = inside(wide, (0, 0, width, height), plan)
        assert whole == wide
