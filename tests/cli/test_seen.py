"""What a model sees, in words."""

import pytest

from handlens.cli.seen import describe
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
