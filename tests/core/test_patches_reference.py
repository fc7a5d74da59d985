"""Position ids against the released rule: ``torch.arange`` in float32, then ``torch.bucketize``."""

import numpy as np
import pytest
import torch

from handlens.core.patches import position_ids, time_code


@pytest.mark.parametrize("table_side", [70, 32])
def test_bucketised_ids_equal_torch(table_side):
    boundaries = torch.arange(1 / table_side, 1.0, 1 / table_side)
    for count in range(1, 401):
        # The released code divides by a tensor, which rounds the step to float32.
        coords = torch.arange(0, 1 - 1e-6, 1 / torch.tensor(count))
        expected = torch.bucketize(coords, boundaries, right=True)
        assert position_ids(count, 1, table_side=table_side).tolist() == (expected * table_side).tolist(), count
        assert position_ids(1, count, table_side=table_side).tolist() == expected.tolist(), count


def test_the_two_rules_differ_where_they_are_known_to():
    # Below 71 patches the rounding of float32 moves a patch only for these counts.
    differ = [
        count
        for count in range(1, 71)
        if position_ids(1, count).tolist() != position_ids(1, count, rule="floor").tolist()
    ]
    assert differ == [25, 49, 50, 55, 58]


def test_2_5_reads_every_slice_as_part_of_one_row():
    boundaries = torch.arange(1 / 70, 1.0, 1 / 70)
    for longest in (1008, 1026, 560):
        row = torch.bucketize(torch.arange(0, 1 - 1e-6, 1 / torch.tensor(longest)), boundaries, right=True)
        assert position_ids(20, 28, rule="row", num_padded=longest).tolist() == row[:560].tolist()
    assert position_ids(4, 3, rule="resized").tolist() == list(range(12))


def test_the_code_of_a_time_is_that_of_a_place():
    # Written out as in the released resampler: sin and cos of t / 10000 ** (i / half).
    half = 64
    omega = 1.0 / 10000 ** (np.arange(half, dtype=np.float32) / np.float32(half))
    for time in (0, 31, 71_999):
        expected = np.concatenate([np.sin(np.float32(time) * omega), np.cos(np.float32(time) * omega)])
        np.testing.assert_allclose(time_code(time, 128), expected.astype(np.float32), rtol=0, atol=1e-6)
    assert not time_code(-1, 128).any()
