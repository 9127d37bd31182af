import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from dgasr.evaluation.calibration import (
    Judgements,
    area_under_roc,
    calibration_figures,
    expected_calibration_error,
    judge,
)
from dgasr.records import Word


def words(*confidences):
    return [Word(word=word, start_sample=0, end_sample=1, confidence=c) for word, c in confidences]


def test_a_word_is_right_where_the_alignment_finds_it():
    judged = judge("one two three", words(("One", 0.9), ("nine", 0.4), ("three", 0.8), ("three", 0.2)))
    assert (judged.is_right.count(True), judged.is_right[1]) == (2, False)


def test_honest_confidences_have_no_error():
    confidences, is_right = np.full(100, 0.75), np.arange(100) < 75
    assert expected_calibration_error(confidences, is_right) == pytest.approx(0.0)


def test_certain_and_always_wrong_is_the_worst():
    assert expected_calibration_error(np.ones(10), np.zeros(10, dtype=bool)) == pytest.approx(1.0)


def test_the_error_is_the_plain_sum_over_bins():
    generator = np.random.default_rng(0)
    confidences, is_right = generator.random(500), generator.random(500) < 0.6
    expected = 0.0
    for low in np.arange(10) / 10:
        inside = (confidences >= low) & (confidences < low + 0.1)
        expected += inside.mean() * abs(is_right[inside].mean() - confidences[inside].mean())
    assert expected_calibration_error(confidences, is_right) == pytest.approx(expected)


def test_without_words_there_is_no_figure():
    assert Judgements().summary()["expected_calibration_error"] is None


def test_whispers_way_forgives_titles_and_the_plain_way_digits():
    heard = words(("Mister", 0.9), ("one", 0.8), ("two", 0.7), ("nine", 0.6))
    assert judge("Mr. one two three", heard, "en", "whisper").is_right == (True, True, True, False)


def test_a_hyphenated_word_is_right_if_all_of_it_is():
    heard = words(("ill-disposed", 0.9), ("ill-supposed", 0.9))
    assert judge("ill disposed ill disposed", heard).is_right == (True, False)


def test_punctuation_alone_is_not_judged():
    assert judge("one", words(("one", 0.9), ("—", 0.1))).confidences == (0.9,)


def test_characters_are_judged_in_chinese():
    assert judge("你好世界。", words(("你", 1.0), ("好", 1.0), ("十", 0.5), ("界", 1.0)), "zh").is_right == (
        True,
        True,
        False,
        True,
    )


def drawn_words(seed=0, num_words=300):
    """Confidences of few values, so that many are equal, and words that are right more often with more confidence."""
    generator = np.random.default_rng(seed)
    confidences = np.round(generator.random(num_words), 1)
    return confidences, generator.random(num_words) < confidences


def test_auroc_is_the_share_of_pairs_in_order():
    confidences, is_right = drawn_words()
    pairs = [(r > w) + 0.5 * (r == w) for r in confidences[is_right] for w in confidences[~is_right]]
    assert area_under_roc(confidences, is_right) == pytest.approx(sum(pairs) / len(pairs))


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
    assert area_under_roc(np.ones(3), np.ones(3, dtype=bool)) is None
    assert area_under_roc(np.ones(3), np.zeros(3, dtype=bool)) is None


def test_figures_lie_in_their_intervals():
    confidences, is_right = drawn_words()
    parts = [
        Judgements(confidences=tuple(confidences[n::30]), is_right=tuple(is_right[n::30].tolist())) for n in range(30)
    ]
    figures = calibration_figures(parts, np.arange(30))
    low, high = figures["auroc_95"]
    assert low < figures["auroc"] < high
    low, high = figures["expected_calibration_error_95"]
    assert 0 < low < high < 1


def test_utterances_without_words_leave_figures_empty():
    figures = calibration_figures([Judgements()] * 3, np.arange(3))
    assert (figures["auroc"], figures["auroc_95"], figures["expected_calibration_error_95"]) == (None, None, None)
