import numpy as np
import pytest

from dgasr.evaluation.timing import TimingErrors, timing_errors, timing_figures
from dgasr.records import Word


def words(*spans):
    return [Word(word=word, start_sample=16 * start, end_sample=16 * end, confidence=1.0) for word, start, end in spans]


SAID = words(("one", 100, 400), ("two", 600, 900), ("three", 1000, 1500))  # times in ms


def test_errors_are_hypothesis_minus_reference():
    errors = timing_errors(SAID[:1], words(("one", 120, 370)))
    assert (errors.start_samples, errors.end_samples) == ((16 * 20,), (-16 * 30,))


def test_case_and_punctuation_do_not_keep_words_apart():
    assert len(timing_errors(SAID[:1], words(("One,", 100, 400))).start_samples) == 1


def test_wrong_missing_and_invented_words_have_no_timing_error():
    heard = words(("one", 100, 400), ("nine", 600, 900), ("three", 1000, 1500), ("four", 1600, 1700))
    assert timing_errors(SAID, heard) == TimingErrors(start_samples=(0, 0), end_samples=(0, 0), reference_words=3)


def test_the_summary_has_medians_and_percentiles_in_milliseconds():
    heard = words(("one", 110, 390), ("two", 570, 900), ("three", 1020, 1560))
    assert timing_errors(SAID, heard).summary() == {
        "start_median_ms": 20.0,
        "start_p90_ms": 28.0,
        "start_bias_ms": 10.0,
        "end_median_ms": 10.0,
        "end_p90_ms": 50.0,
        "end_bias_ms": 0.0,
        "matched_words": 3,
        "timed_reference_words": 3,
    }


def test_utterances_add_up_word_by_word():
    once = timing_errors(SAID[:1], words(("one", 110, 400)))
    many = timing_errors(SAID, words(("one", 150, 400), ("two", 650, 900), ("three", 1050, 1500)))
    assert TimingErrors.total([once, many]).summary()["start_median_ms"] == pytest.approx(50.0)


def test_without_a_match_there_is_no_figure():
    summary = timing_errors(SAID, []).summary()
    assert (summary["start_median_ms"], summary["end_p90_ms"], summary["matched_words"]) == (None, None, 0)


def test_medians_have_intervals_over_utterances():
    parts = [timing_errors(SAID[:1], words(("one", 100 + 10 * (n % 5), 400))) for n in range(50)]
    figures = timing_figures([*parts, TimingErrors()], np.arange(51))
    low, high = figures["start_median_95_ms"]
    assert low <= figures["start_median_ms"] == 20.0 <= high
    assert figures["end_median_95_ms"] == (0.0, 0.0)


def test_without_a_match_medians_have_no_interval():
    assert timing_figures([TimingErrors()], np.arange(1))["start_median_95_ms"] is None
