"""Words recognised beside words that were said: confidences and times."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from dgasr.evaluation.words import (
    area_under_roc,
    calibration_figures,
    expected_calibration_error,
    judge,
    timing_errors,
    timing_figures,
)
from dgasr.records import Word


def words(*confidences):
    return [Word(word=word, start_sample=0, end_sample=1, confidence=c) for word, c in confidences]


@pytest.mark.parametrize(
    ("said", "heard", "asked", "rights"),
    [
        ("one two three", "One nine three", (), [1, 0, 1]),
        ("Mr. one two three", "Mister one two nine", ("en", "whisper"), [1, 1, 1, 0]),  # titles, and single digits
        ("ill disposed ill disposed", "ill-disposed ill-supposed", (), [1, 0]),  # all of a word has to be right
        ("one", "one —", (), [1]),  # punctuation alone is not judged
        ("你好世界。", "你 好 十 界", ("zh",), [1, 1, 0, 1]),
    ],
)
def test_a_word_is_right_where_the_alignment_finds_it(said, heard, asked, rights):
    judged = judge(said, words(*((word, n / 10) for n, word in enumerate(heard.split()))), *asked)
    assert judged.tolist() == [[n / 10, right] for n, right in enumerate(rights)]


def test_honest_confidences_have_no_error_and_certain_wrong_ones_the_worst():
    assert expected_calibration_error(np.full(100, 0.75), np.arange(100) < 75) == pytest.approx(0.0)
    assert expected_calibration_error(np.ones(10), np.zeros(10)) == pytest.approx(1.0)


def test_the_error_is_the_plain_sum_over_bins():
    generator = np.random.default_rng(0)
    confidences, is_right = generator.random(500), generator.random(500) < 0.6
    expected = 0.0
    for low in np.arange(10) / 10:
        inside = (confidences >= low) & (confidences < low + 0.1)
        expected += inside.mean() * abs(is_right[inside].mean() - confidences[inside].mean())
    assert expected_calibration_error(confidences, is_right) == pytest.approx(expected)


def drawn_words(seed=0, num_words=300):
    """Confidences of few values, so that many are equal, and words that are right more often with more confidence."""
    generator = np.random.default_rng(seed)
    confidences = np.round(generator.random(num_words), 1)
    return confidences, generator.random(num_words) < confidences


def test_auroc_is_scipys_rank_sum_statistic():
    confidences, is_right = drawn_words(1)
    statistic = mannwhitneyu(confidences[is_right], confidences[~is_right]).statistic
    expected = statistic / (is_right.sum() * (~is_right).sum())
    assert area_under_roc(confidences, is_right) == pytest.approx(expected)


def test_auroc_is_the_area_under_the_curve():
    confidences, is_right = drawn_words(2)
    thresholds = np.concatenate([[np.inf], np.unique(confidences)[::-1]])
    true_rate = [(confidences[is_right] >= t).mean() for t in thresholds]
    false_rate = [(confidences[~is_right] >= t).mean() for t in thresholds]
    assert area_under_roc(confidences, is_right) == pytest.approx(np.trapezoid(true_rate, false_rate))


def test_without_right_or_without_wrong_words_there_is_no_area():
    assert area_under_roc(np.ones(3), np.ones(3)) is area_under_roc(np.ones(3), np.zeros(3)) is None


def test_figures_lie_in_their_intervals():
    judged = np.column_stack(drawn_words())
    figures = calibration_figures([judged[n::30] for n in range(30)], np.arange(30))
    low, high = figures["auroc_95"]
    assert low < figures["auroc"] < high
    low, high = figures["expected_calibration_error_95"]
    assert 0 < low < high < 1


def test_without_words_figures_are_empty():
    figures = calibration_figures([np.empty((0, 2))] * 3, np.arange(3))
    assert figures.pop("words") == 0
    assert figures.pop("bins") == []
    assert set(figures.values()) == {None}


def spans(*given):
    return [Word(word=word, start_sample=16 * start, end_sample=16 * end, confidence=1.0) for word, start, end in given]


SAID = spans(("one", 100, 400), ("two", 600, 900), ("three", 1000, 1500))  # times in ms


def test_errors_are_hypothesis_minus_reference():
    assert timing_errors(SAID[:1], spans(("One,", 120, 370))).tolist() == [[20.0, -30.0]]


def test_wrong_missing_and_invented_words_have_no_timing_error():
    heard = spans(("one", 100, 400), ("nine", 600, 900), ("three", 1000, 1500), ("four", 1600, 1700))
    assert timing_errors(SAID, heard).tolist() == [[0, 0], [0, 0]]


def test_there_are_medians_and_percentiles_of_all_words():
    heard = spans(("one", 110, 390), ("two", 570, 900), ("three", 1020, 1560))
    parts = [timing_errors(SAID[:1], heard), np.empty((0, 2)), timing_errors(SAID[1:], heard)]
    figures = timing_figures(parts, np.arange(3))
    assert {name: figures[f"start_{name}_ms"] for name in ("median", "p90", "bias")} == {
        "median": 20.0, "p90": 28.0, "bias": 10.0
    }  # fmt: skip
    assert {name: figures[f"end_{name}_ms"] for name in ("median", "p90", "bias")} == {
        "median": 10.0, "p90": 50.0, "bias": 0.0
    }  # fmt: skip
    assert (figures["matched_words"], sum(figures["histogram"]["start"])) == (3, 3)


def test_without_a_match_there_is_no_figure():
    figures = timing_figures([timing_errors(SAID, [])], np.arange(1))
    assert (figures["start_median_ms"], figures["end_p90_ms"], figures["start_median_95_ms"]) == (None, None, None)


def test_medians_have_intervals_over_utterances():
    parts = [timing_errors(SAID[:1], spans(("one", 100 + 10 * (n % 5), 400))) for n in range(50)]
    figures = timing_figures([*parts, np.empty((0, 2))], np.arange(51))
    low, high = figures["start_median_95_ms"]
    assert low <= figures["start_median_ms"] == 20.0 <= high
    assert figures["end_median_95_ms"] == (0.0, 0.0)
