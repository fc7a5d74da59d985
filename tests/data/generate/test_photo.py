"""The camera moves boxes where it moves pixels, and keeps the page in view."""

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from handlens.data.generate.photo import choose_warp, grain_tile, move_boxes, noise_tile, paint, spoil, warp_image


def test_boxes_move_by_hand() -> None:
    # twice as large, then 10 right: x -> 2x + 10, y -> 2y
    warp = np.array([[2.0, 0.0, 10.0], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0]])
    moved = move_boxes(warp, np.array([[0.0, 0.0, 5.0, 5.0], [1.0, 2.0, 3.0, 4.0]]))
    assert moved.tolist() == [[10.0, 0.0, 20.0, 10.0], [12.0, 4.0, 16.0, 8.0]]


def test_quarter_turn_by_hand() -> None:
    # (x, y) -> (-y, x): the box 0..2 x 0..1 becomes -1..0 x 0..2
    warp = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert move_boxes(warp, np.array([[0.0, 0.0, 2.0, 1.0]])).tolist() == [[-1.0, 0.0, 0.0, 2.0]]


@pytest.mark.parametrize("seed", range(40))
def test_pixels_land_in_their_box(seed: int) -> None:
    rng = Random(seed)
    warp = choose_warp(rng, 200, 120, (20.0, 20.0, 180.0, 100.0), 1.0)
    if warp is None:
        return
    mask = np.zeros((120, 200), np.uint8)
    mask[40:60, 50:90] = 255
    seen = np.asarray(warp_image(Image.fromarray(mask), warp, (200, 120))) > 127
    rows, columns = np.nonzero(seen.any(1))[0], np.nonzero(seen.any(0))[0]
    x0, y0, x1, y1 = move_boxes(warp, np.array([[50.0, 40.0, 90.0, 60.0]]))[0]
    found = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    assert np.abs(np.array(found) - (x0, y0, x1, y1)).max() <= 1.5


@given(
    seed=st.integers(0, 10**6), width=st.integers(48, 520), height=st.integers(48, 560),
    edge=st.floats(0, 8), level=st.floats(0, 1),
)  # fmt: skip
def test_content_stays_in_the_picture(seed: int, width: int, height: int, edge: float, level: float) -> None:
    content = (edge, edge, width - edge, height - edge)
    warp = choose_warp(Random(seed), width, height, content, level)
    if warp is not None:
        x0, y0, x1, y1 = move_boxes(warp, np.array([content]))[0]
        assert 0.5 < x0 < x1 < width - 0.5
        assert 0.5 < y0 < y1 < height - 0.5


def test_level_zero_is_flat_and_untouched() -> None:
    rng = Random(1)
    pixels = np.random.default_rng(1).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    for _ in range(30):
        assert choose_warp(rng, 80, 60, (5.0, 5.0, 70.0, 50.0), 0.0) is None
        assert np.array_equal(np.asarray(spoil(rng, pixels, 0.0)), pixels)


def test_level_one_changes_most_pictures_a_little() -> None:
    rng = Random(2)
    pixels = np.full((60, 80, 3), 128, np.uint8)
    changes = [np.abs(np.asarray(spoil(rng, pixels, 1.0)).astype(int) - 128).mean() for _ in range(200)]
    assert sum(change > 0 for change in changes) > 120
    assert max(changes) < 100


def test_paint_by_hand() -> None:
    mask = np.array([[0, 255], [51, 204]], np.uint8)
    # 51 is a fifth: 200 + (100 - 200) / 5 = 180
    assert paint(mask, (100, 0, 0), (200, 0, 255))[..., 0].tolist() == [[200, 100], [180, 120]]
    assert paint(mask, (100, 0, 0), (200, 0, 255))[..., 2].tolist() == [[255, 0], [204, 51]]


def test_tiles_repeat_without_a_seam() -> None:
    tile = noise_tile()
    half = len(tile) // 2
    assert np.array_equal(tile[:half, :half], tile[half:, half:])
    grain = grain_tile()[: half + 1, : half + 1].astype(int)
    seam = np.abs(grain[:, half] - grain[:, half - 1]).mean()
    inside = np.abs(np.diff(grain, axis=1)).mean()
    assert seam < 1.3 * inside
