"""Position ids against the released rule: ``torch.arange`` in float32, then ``torch.bucketize``."""

import pytest
import torch

from handlens.core.patches import position_ids


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
