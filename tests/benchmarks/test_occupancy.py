"""How much of what a batch computes is somebody's; idle rows are what other systems' GPUs waited on."""

from benchmarks.occupancy import LENGTHS_S, measure


def test_nearly_all_rows_are_in_use_on_the_most_mixed_lengths():
    found = measure(LENGTHS_S["uniform, 2 to 30 s"], num_rows=16, num_jobs=16 * 300)
    assert found.share >= 0.95
    assert found.most_waiting <= 16
