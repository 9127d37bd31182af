import numpy as np
import pytest

from dgasr.evaluation.calibration import Judgements, expected_calibration_error, judge
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
