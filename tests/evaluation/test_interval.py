import pytest

from dgasr.evaluation.interval import bootstrap_interval, paired_interval
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


def test_a_difference_is_surer_than_the_rates_it_lies_between():
    hard, easy = EditCounts(8, 0, 0, 10), EditCounts(0, 0, 0, 10)
    worse = [EditCounts(9, 0, 0, 10), EditCounts(1, 0, 0, 10)] * 50
    assert paired_interval(worse, [hard, easy] * 50) == pytest.approx((0.1, 0.1))


def test_equal_ways_differ_by_nothing_and_the_sign_is_that_of_the_first():
    none, one = EditCounts(0, 0, 0, 5), EditCounts(1, 0, 0, 5)
    assert paired_interval([none, one], [none, one]) == (0.0, 0.0)
    assert paired_interval([none] * 9, [one] * 9) == pytest.approx((-0.2, -0.2))
