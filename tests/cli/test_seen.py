"""What a model sees, in words."""

import pytest

from handlens.cli.seen import describe, describe_sight
from handlens.core.sight import Sight
from handlens.core.slicing import plan_slices


@pytest.mark.parametrize(
    ("size", "consequence"),
    [
        # Enlarged: 224 px seen as 448 px, factor 2, letters of 8 / 2 px.
        ((224, 224), "resize factor 2.00; smallest readable letters about 4 px high; no detail is dropped"),
        ((1344, 1344), "resize factor 1.00; smallest readable letters about 8 px high; no detail is dropped"),
        # 4000x3000 -> 1554x1176: factor 0.390, 8 / 0.390 = 20.5, 1 - 0.1523 = 85 %.
        (
            (4000, 3000),
            "resize factor 0.39; smallest readable letters about 20 px high; 85 % of the pixels are dropped",
        ),
    ],
)
def test_consequences(size, consequence):
    assert describe("a.png", plan_slices(*size), 64).splitlines()[1].strip() == consequence


def test_a_warning_has_numbers_and_advice():
    sight = Sight(
        name="page", plan=plan_slices(2400, 1600, side_px=224), num_queries=64, num_letters=500, num_too_small=480,
        letter_px=14.0,
    )  # fmt: skip
    warning, advice = describe_sight(sight).splitlines()[2:]
    # 2400x1600 px at 784x504 px: factor 0.321; 14 px become 4.5 px.
    assert warning == (
        "  warning: about 480 of 500 letters are too small to read: "
        "14 px high on the picture, 4.5 px after resizing, 8 needed"
    )
    # 0.321 / (8 / 14) = 0.561 of each side.
    assert advice == "  what helps: cut out the part you ask about, at most 1347x898 px of 2400x1600"
