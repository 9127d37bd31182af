import numpy as np
import pytest

from dgasr.evaluation.interval import MIN_SPEAKERS, drawn_units, ratio_interval, statistics_intervals


def test_the_rate_lies_inside():
    low, high = ratio_interval([1] * 20 + [0] * 180, [10] * 200, np.arange(200))
    assert low < 0.01 < high


def test_the_width_is_that_of_independent_utterances():
    low, high = ratio_interval([1] * 100 + [0] * 100, [1] * 200, np.arange(200))
    assert high - low == pytest.approx(2 * 1.96 * (0.25 / 200) ** 0.5, rel=0.1)


def test_equal_utterances_leave_no_doubt():
    assert ratio_interval([1] * 10, [4] * 10, np.arange(10)) == pytest.approx((0.25, 0.25))


def test_utterances_of_a_speaker_are_drawn_together_where_there_are_enough():
    speakers = [f"s{n:02}" for n in range(MIN_SPEAKERS)] * 2
    assert drawn_units(speakers).tolist() == [*range(MIN_SPEAKERS)] * 2


def test_few_or_unknown_speakers_are_not_drawn():
    speakers = [f"s{n}" for n in range(MIN_SPEAKERS)]
    assert drawn_units(speakers[1:] * 2).tolist() == list(range(2 * MIN_SPEAKERS - 2))
    assert drawn_units([*speakers, None]).tolist() == list(range(MIN_SPEAKERS + 1))


def test_speakers_that_differ_widen_the_interval():
    errors = [n % 20 < 10 for n in range(400)]  # half of the speakers are always wrong
    low, high = ratio_interval(errors, [1] * 400, np.arange(400))
    wide_low, wide_high = ratio_interval(errors, [1] * 400, np.arange(400) % 20)
    assert wide_high - wide_low > 3 * (high - low)


def test_drawing_units_equals_drawing_their_sums():
    errors, units = np.random.default_rng(3).integers(0, 5, 60), np.arange(60) % 12
    sums = errors.reshape(5, 12).sum(axis=0)
    expected = ratio_interval(sums, [50] * 12, np.arange(12))
    assert ratio_interval(errors, [10] * 60, units) == pytest.approx(expected)


@pytest.mark.parametrize("below", [[0] * 9, [1] + [0] * 8])
def test_a_ratio_to_hardly_anything_has_no_interval(below):
    assert ratio_interval([1] * 9, below, np.arange(9)) is None


def test_the_interval_of_a_median_is_that_of_plain_resampling():
    parts = [np.random.default_rng(n).normal(size=(5, 1)) for n in range(40)]
    [interval] = statistics_intervals(parts, lambda values: [float(np.median(values))], np.arange(40))
    generator = np.random.default_rng(9)
    medians = [np.median(np.concatenate([parts[n] for n in generator.integers(40, size=40)])) for _ in range(1000)]
    assert interval == pytest.approx(tuple(np.quantile(medians, [0.025, 0.975])), abs=0.05)


def test_a_figure_that_many_draws_do_not_determine_has_no_interval():
    parts = [np.ones((1, 1)), *[np.zeros((0, 1))] * 5]
    assert statistics_intervals(parts, lambda v: [v.mean() if len(v) else np.nan], np.arange(6)) == [None]
