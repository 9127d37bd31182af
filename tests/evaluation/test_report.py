import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from dgasr.evaluation.report import (
    Evaluation,
    area_under_roc,
    calibration_figures,
    expected_calibration_error,
    judge,
    timing_errors,
    timing_figures,
)
from dgasr.evaluation.scores import ScoredUtterance
from dgasr.evaluation.tables import figures_table, steps_cells
from dgasr.records import Word


def scored(reference, hypothesis, **fields):
    defaults = {"audio_filepath": "a.wav", "language": "en", "audio_s": 2.0}
    return ScoredUtterance(reference=reference, hypothesis=hypothesis, **(defaults | fields))


def evaluation(*utterances, **fields):
    defaults = {"normalizer": "basic", "metric": "wer", "max_steps": 8, "path": "diffusion", "wall_s": 0.5}
    return Evaluation(utterances=utterances, **(defaults | fields))


def table(*utterances, **fields):
    return figures_table(evaluation(*utterances, **fields).to_json())


def timed(*spans):
    return tuple(Word(word=word, start_sample=start, end_sample=end, confidence=0.9) for word, start, end in spans)


TWO = (
    scored("one two", "one two", reference_words=timed(("one", 0, 800), ("two", 1600, 3200))),
    scored("three four five", "three nine five six"),
)


def test_figures_are_sums_over_utterances():
    figures = evaluation(*TWO).to_json()
    assert figures["edits"] == {"substitutions": 1, "deletions": 0, "insertions": 1, "reference_words": 5}
    assert (figures["wer"], figures["audio_s"], figures["rtfx"], figures["steps"]) == (0.4, 4.0, 8.0, 8)


def test_the_report_is_plain_json():
    assert json.loads(json.dumps(evaluation(*TWO).to_json(), allow_nan=False))["num_utterances"] == 2


def test_broken_audio_counts_as_deleted_words_and_is_listed():
    broken = scored("one two", "", audio_s=0.0, failure="b.wav: holds no bytes.", audio_filepath="b.wav")
    figures = evaluation(TWO[0], broken).to_json()
    assert (figures["wer"], figures["edits"]["deletions"], figures["num_utterances"]) == (0.5, 2, 2)
    assert figures["failures"] == [{"audio_filepath": "b.wav", "message": "b.wav: holds no bytes."}]


def test_a_manifest_without_words_has_no_rate_and_still_a_report():
    report = evaluation(scored("", "six"))
    assert (report.to_json()["wer"], report.to_json()["edits"]["insertions"]) == (None, 1)
    assert "WER       undefined" in figures_table(report.to_json())


def test_the_table_leads_with_the_metric():
    assert table(*TWO, metric="cer").startswith("CER")


def test_the_table_names_what_failed():
    assert "failed    b.wav: holds no bytes." in table(scored("one", "", failure="b.wav: holds no bytes."))


def test_the_table_shows_word_times_where_they_are_known():
    recognised = replace(TWO[0], hypothesis_words=timed(("one", 160, 800), ("two", 1760, 3200)))
    assert "start 10 / 10, end 0 / 0 ms (median / p90 of 2 words)" in table(recognised)


def test_steps_are_laid_side_by_side():
    few, many = evaluation(*TWO, max_steps=1), evaluation(TWO[0], max_steps=8)
    _, rows = steps_cells([few.to_json(), many.to_json()])
    assert [row[:2] for row in rows] == [[1, "40.00 %"], [8, "0.00 %"]]


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
