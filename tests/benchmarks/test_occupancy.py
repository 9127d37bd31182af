"""How much of what a batch computes is somebody's; idle rows are what other systems' GPUs waited on."""

import pytest

from benchmarks.occupancy import LENGTHS_S, measure


@pytest.mark.parametrize(
    ("lengths", "num_rows", "share"), [("uniform, 2 to 30 s", 16, 0.95), ("exponential, mean 8 s", 4, 0.95)]
)
def test_nearly_all_rows_are_in_use_on_mixed_lengths(lengths, num_rows, share):
    found = measure(LENGTHS_S[lengths], num_rows, num_rows * 100)  # enough to see patience 2 in place of 4
    assert found.share >= share
    assert found.most_waiting <= 16
