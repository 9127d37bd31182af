import json
from dataclasses import replace

from dgasr.evaluation.report import Evaluation
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
