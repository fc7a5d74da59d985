"""Patches, position ids and key positions, down to the bit."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from handlens.core.patches import key_positions, normalise, position_ids, to_patches, to_strip
from handlens.core.slicing import cut, plan_slices


def pattern(width: int, height: int) -> Image.Image:
    """Return R = 7x + 3y, G = x**2 // 5 + y, B = x + y**2 // 7, each modulo 256."""
    x, y = np.arange(width)[None, :], np.arange(height)[:, None]
    channels = (7 * x + 3 * y, x**2 // 5 + y, x + y**2 // 7)
    return Image.fromarray(np.stack([channel % 256 for channel in channels], axis=-1).astype(np.uint8))


def test_pixels_equal_the_released_processors():
    # Blocks [3, 14, 14 * patches] of the overview and both slices, as the released 2.6 processor makes them.
    image = pattern(777, 333)
    plan = plan_slices(777, 333)
    assert plan.patches == [(21, 49), (30, 34), (30, 34)]
    strips = [to_strip(normalise(picture)) for picture in cut(image, plan)]
    assert [hashlib.sha256(strip.astype("<f4").tobytes()).hexdigest()[:16] for strip in strips] == [
        "11d2ca426040d6c0",
        "4a30e5462cb168a0",
        "5b9b5aebc156a62d",
    ]
    sums = [float(strip.sum(dtype=np.float64)) for strip in strips]
    assert sums == pytest.approx([-1859.7387, -2297.3547, -1355.5824], abs=0.01)


def test_normalise_maps_black_and_white_to_the_ends():
    pixels = normalise(Image.fromarray(np.array([[[0, 127, 255]]], dtype=np.uint8)))
    # 127 / 255 = 0.4980392; (0.4980392 - 0.5) / 0.5 = -0.0039216
    assert pixels.reshape(-1).tolist() == pytest.approx([-1.0, -0.0039216, 1.0], abs=1e-6)
    assert pixels.dtype == np.float32


@given(rows=st.integers(1, 5), columns=st.integers(1, 5), seed=st.integers(0, 99))
def test_patches_hold_their_pixels(rows, columns, seed):
    pixels = np.random.default_rng(seed).standard_normal((3, rows * 14, columns * 14)).astype(np.float32)
    patches, strip = to_patches(pixels), to_strip(pixels)
    for place in range(rows * columns):
        top, left = place // columns * 14, place % columns * 14
        piece = pixels[:, top : top + 14, left : left + 14]
        assert np.array_equal(patches[place].reshape(3, 14, 14), piece)
        assert np.array_equal(strip[:, :, place * 14 : place * 14 + 14], piece)


def test_position_ids_by_hand():
    # Two rows are at 0 and 1/2: buckets 0 and 35 of 70. Three columns are at 0, 1/3, 2/3: 0, 23 (23.3), 46 (46.7).
    assert position_ids(2, 3).tolist() == [0, 23, 46, 35 * 70, 35 * 70 + 23, 35 * 70 + 46]
    assert position_ids(2, 3, rule="floor").tolist() == position_ids(2, 3).tolist()
    # A picture of 70 rows uses every row of the table once.
    assert np.array_equal(position_ids(70, 1), np.arange(70) * 70)


def test_key_positions_by_hand():
    # dim 8: omega = [1, 10000 ** -0.5] = [1, 0.01]. Patch at row 1, column 2 of a 2 x 3 grid is number 5:
    # sin(2), sin(0.02), cos(2), cos(0.02), sin(1), sin(0.01), cos(1), cos(0.01).
    table = key_positions(2, 3, 8)
    expected = [0.909297, 0.019999, -0.416147, 0.999800, 0.841471, 0.010000, 0.540302, 0.999950]
    assert table[5].tolist() == pytest.approx(expected, abs=1e-6)
    assert table[0].tolist() == [0, 0, 1, 1, 0, 0, 1, 1]


@given(rows=st.integers(1, 60), columns=st.integers(1, 60))
def test_key_positions_depend_only_on_the_place(rows, columns):
    table = key_positions(rows, columns, 16).reshape(rows, columns, 16)
    assert np.array_equal(table, key_positions(60, 60, 16).reshape(60, 60, 16)[:rows, :columns])
