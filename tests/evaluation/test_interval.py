import pytest

from dgasr.evaluation.interval import bootstrap_interval
from dgasr.evaluation.wer import EditCounts


def test_the_rate_lies_inside():
    low, high = bootstrap_interval([EditCounts(1, 0, 0, 10)] * 20 + [EditCounts(0, 0, 0, 10)] * 180)
    assert low < 0.01 < high


def test_the_width_is_that_of_independent_utterances():
    low, high = bootstrap_interval([EditCounts(1, 0, 0, 1)] * 100 + [EditCounts(0, 0, 0, 1)] * 100)
    assert high - low == pytest.approx(2 * 1.96 * (0.25 / 200) ** 0.5, rel=0.1)


def test_equal_utterances_leave_no_doubt():
    assert bootstrap_interval([EditCounts(0, 1, 0, 4)] * 10) == pytest.approx((0.25, 0.25))


def test_without_reference_words_there_is_none():
    assert bootstrap_interval([EditCounts(0, 0, 2, 0)]) is None
