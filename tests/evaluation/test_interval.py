import numpy as np
import pytest

from dgasr.evaluation.interval import (
    MIN_SPEAKERS,
    bootstrap_interval,
    drawn_units,
    ratio_interval,
    statistics_intervals,
)
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


def test_utterances_of_a_speaker_are_drawn_together_where_there_are_enough():
    speakers = [f"s{n:02}" for n in range(MIN_SPEAKERS)] * 2
    assert drawn_units(speakers).tolist() == [*range(MIN_SPEAKERS)] * 2


def test_few_or_unknown_speakers_are_not_drawn():
    speakers = [f"s{n}" for n in range(MIN_SPEAKERS)]
    assert drawn_units(speakers[1:] * 2).tolist() == list(range(2 * MIN_SPEAKERS - 2))
    assert drawn_units([*speakers, None]).tolist() == list(range(MIN_SPEAKERS + 1))


def test_speakers_that_differ_widen_the_interval():
    counts = [EditCounts(n % 20 < 10, 0, 0, 1) for n in range(400)]  # half of the speakers are always wrong
    units = np.arange(400) % 20
    low, high = bootstrap_interval(counts)
    wide_low, wide_high = bootstrap_interval(counts, units)
    assert wide_high - wide_low > 3 * (high - low)


def test_drawing_units_equals_drawing_their_sums():
    generator = np.random.default_rng(3)
    counts = [EditCounts(int(e), 0, 0, 10) for e in generator.integers(0, 5, 60)]
    units = np.arange(60) % 12
    sums = [sum((counts[n] for n in range(60) if units[n] == unit), EditCounts()) for unit in range(12)]
    assert bootstrap_interval(counts, units) == pytest.approx(bootstrap_interval(sums))


def test_a_ratio_lies_around_the_quotient_of_the_rates():
    ours = [EditCounts(2 + n % 3, 0, 0, 10) for n in range(60)]
    theirs = [EditCounts(1 + n % 2, 0, 0, 10) for n in range(60)]
    low, high = ratio_interval(ours, theirs)
    assert low < 3 / 1.5 < high


def test_a_ratio_to_hardly_any_errors_has_no_interval():
    none, one = EditCounts(0, 0, 0, 5), EditCounts(1, 0, 0, 5)
    assert ratio_interval([one] * 9, [none] * 9) is None
    assert ratio_interval([one] * 9, [one] + [none] * 8) is None


def test_the_interval_of_a_median_is_that_of_plain_resampling():
    parts = [np.random.default_rng(n).normal(size=(5, 1)) for n in range(40)]
    [interval] = statistics_intervals(parts, lambda values: [float(np.median(values))], np.arange(40))
    generator = np.random.default_rng(9)
    medians = [np.median(np.concatenate([parts[n] for n in generator.integers(40, size=40)])) for _ in range(1000)]
    assert interval == pytest.approx(tuple(np.quantile(medians, [0.025, 0.975])), abs=0.05)


def test_a_figure_that_many_draws_do_not_determine_has_no_interval():
    parts = [np.ones((1, 1)), *[np.zeros((0, 1))] * 5]
    assert statistics_intervals(parts, lambda v: [v.mean() if len(v) else np.nan], np.arange(6)) == [None]
