"""Slicing against the released code, row by row, and as invariants."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from handlens.core.slicing import Grid, SlicePlan, cell_boxes, choose_grid, cut, plan_slices, plan_square
from handlens.errors import ImageError, SettingError

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "slicing.json").read_text(encoding="utf-8"))
GOLDEN_46 = json.loads((Path(__file__).parents[1] / "golden" / "slicing-4.6.json").read_text(encoding="utf-8"))
sides = st.integers(1, 30_000)
limits = st.integers(1, 40)


def row_of(plan: SlicePlan) -> list[int]:
    grid = (plan.grid.columns, plan.grid.rows) if plan.grid else (0, 0)
    cell = plan.patches[1] if plan.grid else (0, 0)
    return [*grid, *plan.overview, *(plan.refined or (0, 0)), *cell, plan.num_slices]


@pytest.mark.parametrize("place", range(len(GOLDEN["max_slices"])), ids=[f"max{n}" for n in GOLDEN["max_slices"]])
def test_every_row_of_the_released_code(place):
    max_slices = GOLDEN["max_slices"][place]
    wrong = {
        (width, height): (row_of(plan_slices(width, height, max_slices=max_slices)), decisions[place])
        for width, height, decisions in GOLDEN["rows"]
        if row_of(plan_slices(width, height, max_slices=max_slices)) != decisions[place]
    }
    assert wrong == {}
    assert len(GOLDEN["rows"]) == 400


@pytest.mark.parametrize(("mode", "multiple_px"), [("4.6-16x", 56), ("4.6-4x", 28)])
def test_every_row_of_4_6(mode, multiple_px):
    limits = (1, 9, 36)
    for width, height, decisions in GOLDEN_46["rows"][mode]:
        for max_slices, decision in zip(limits, decisions, strict=True):
            plan = plan_slices(width, height, max_slices=max_slices, multiple_px=multiple_px, prefer_rows=True)
            assert row_of(plan) == decision, (width, height, max_slices)


def test_rows_win_among_equals_where_they_are_preferred():
    assert choose_grid(500, 500, max_slices=2, prefer_rows=True) == Grid(1, 2)
    tied = [Grid(1, 2), Grid(2, 1)]
    assert choose_grid(640, 640, max_slices=2) in tied
    assert choose_grid(640, 640, max_slices=2, prefer_rows=True) == max(tied, key=lambda grid: grid.rows)


def test_the_square_of_1_0_keeps_no_shape():
    plan = plan_square(777, 333)
    assert (plan.overview, plan.grid, plan.patches) == ((448, 448), None, [(32, 32)])
    assert [part.size for part in cut(Image.new("RGB", (777, 333)), plan)] == [(448, 448)]
    with pytest.raises(ImageError, match="picture is 0x5 px"):
        plan_square(0, 5)


@given(width=sides, height=sides, max_slices=limits, side_px=st.sampled_from([112, 224, 448]))
def test_a_plan_is_always_within_its_limits(width, height, max_slices, side_px):
    plan = plan_slices(width, height, max_slices=max_slices, side_px=side_px)
    assert 1 <= plan.num_slices <= max_slices + 1
    assert plan.num_slices == len(plan.patches)
    assert all(rows >= 1 and columns >= 1 for rows, columns in plan.patches)
    for width_px, height_px in (plan.overview, plan.cell or (14, 14)):
        assert width_px % 14 == height_px % 14 == 0
    assert (plan.grid is None) == (plan.refined is None) == (plan.cell is None)
    assert plan.grid is None or plan.grid.num_cells >= 2


@given(columns=st.integers(1, 40), rows=st.integers(1, 40), width=sides, height=sides)
def test_cells_cover_the_picture_without_overlap(columns, rows, width, height):
    plan = SlicePlan(width=width, height=height, grid=Grid(columns, rows), overview=(14, 14), refined=(14, 14))
    boxes = cell_boxes(plan, of=(width, height))
    assert len(boxes) == columns * rows
    # Row-major neighbours share an edge and the outer edges are those of the picture: nothing is left out or twice.
    for place, (left, top, right, bottom) in enumerate(boxes):
        row, column = divmod(place, columns)
        assert left <= right and top <= bottom
        assert left == (0 if column == 0 else boxes[place - 1][2])
        assert top == (0 if row == 0 else boxes[place - columns][3])
        assert column < columns - 1 or right == width
        assert row < rows - 1 or bottom == height
    assert sum((right - left) * (bottom - top) for left, top, right, bottom in boxes) == width * height


@given(width=st.integers(1, 5_000), height=st.integers(1, 5_000), max_slices=limits)
def test_the_refined_picture_is_cut_into_equal_cells(width, height, max_slices):
    plan = plan_slices(width, height, max_slices=max_slices)
    for left, top, right, bottom in cell_boxes(plan, of=plan.refined or (0, 0)):
        assert (right - left, bottom - top) == plan.cell


@given(width=sides, height=sides, max_slices=limits)
def test_transposing_the_picture_transposes_the_grid(width, height, max_slices):
    wanted = min(math.ceil(width * height / 448**2), max_slices)
    assume(wanted > 1)
    shapes = {
        (columns, num // columns)
        for num in (wanted - 1, wanted, wanted + 1)
        if 1 < num <= max_slices
        for columns in range(1, num + 1)
        if num % columns == 0
    }
    distances = sorted(abs(math.log(width / height) - math.log(columns / rows)) for columns, rows in shapes)
    assume(len(distances) == 1 or distances[1] - distances[0] > 1e-9)
    grid, turned = (
        choose_grid(width, height, max_slices=max_slices),
        choose_grid(height, width, max_slices=max_slices),
    )
    assert grid is not None and turned is not None
    assert (grid.columns, grid.rows) == (turned.rows, turned.columns)


def test_the_first_of_equals_wins():
    # A square of two slices: 1x2 and 2x1 are equally far from 1:1, and one column is tried first.
    assert choose_grid(500, 500, max_slices=2) == Grid(1, 2)


@given(width=st.integers(1, 700), height=st.integers(1, 700), side_px=st.sampled_from([112, 448]))
def test_pictures_have_the_planned_sizes_in_both_orders(width, height, side_px):
    image = Image.new("RGB", (width, height), (10, 200, 30))
    plan = plan_slices(width, height, side_px=side_px)
    for order in ("resize_then_crop", "crop_then_resize"):
        pictures = cut(image, plan, order=order)
        assert [picture.size for picture in pictures] == [plan.overview] + [plan.cell] * (plan.num_slices - 1)
        assert all(picture.getpixel((0, 0)) == (10, 200, 30) for picture in pictures)


@pytest.mark.parametrize("order", ["resize_then_crop", "crop_then_resize"])
@pytest.mark.parametrize("size", [(1, 1), (3, 1), (1, 3), (30_000, 30), (30, 30_000), (30_000, 1), (1, 30_000)])
def test_extreme_shapes_are_cut(size, order):
    plan = plan_slices(*size)
    pictures = cut(Image.new("RGB", size), plan, order=order)
    assert [picture.size for picture in pictures] == [plan.overview] + [plan.cell] * (plan.num_slices - 1)


def test_crop_then_resize_keeps_a_slice_free_of_its_neighbours():
    # Left half black, right half white, 2x1 grid: bicubic resizing of the whole picture bleeds over the border
    # between the cells; cutting first cannot.
    image = Image.new("RGB", (640, 480), "white")
    image.paste("black", (0, 0, 320, 480))
    plan = plan_slices(640, 480)
    assert plan.grid == Grid(2, 1)
    first, second = (np.asarray(picture) for picture in cut(image, plan, order="crop_then_resize")[1:])
    assert first.max() == 0 and second.min() == 255
    whole = [np.asarray(picture) for picture in cut(image, plan)[1:]]
    assert whole[0].max() > 0 or whole[1].min() < 255


def test_slices_are_row_major_places_of_the_picture():
    # Red grows with the column and green with the row, so the mean of a slice tells its place.
    ramp = np.zeros((1344, 1344, 3), dtype=np.uint8)
    ramp[..., 0] = np.linspace(0, 255, 1344)[None, :]
    ramp[..., 1] = np.linspace(0, 255, 1344)[:, None]
    plan = plan_slices(1344, 1344)
    means = [np.asarray(picture).mean(axis=(0, 1)) for picture in cut(Image.fromarray(ramp), plan)[1:]]
    for place, (red, green, _) in enumerate(means):
        row, column = divmod(place, 3)
        assert red == pytest.approx(255 * (column + 0.5) / 3, abs=1)
        assert green == pytest.approx(255 * (row + 0.5) / 3, abs=1)


def test_resize_factor_says_how_much_detail_is_left():
    # 4000x3000 is refined to 1554x1176: sqrt(1554 * 1176 / (4000 * 3000)) = 0.39024
    assert plan_slices(4000, 3000).resize_factor == pytest.approx(0.39024, abs=1e-5)
    assert plan_slices(1344, 1344).resize_factor == 1.0


def test_errors():
    with pytest.raises(ImageError, match="picture is 0x5 px; both sides must be at least 1 px"):
        plan_slices(0, 5)
    with pytest.raises(SettingError, match="max_slices is 0; it must be at least 1"):
        plan_slices(5, 5, max_slices=0)
    with pytest.raises(ImageError, match=r"the plan is for 5x5 px but the picture has \(6, 5\)"):
        cut(Image.new("RGB", (6, 5)), plan_slices(5, 5))
