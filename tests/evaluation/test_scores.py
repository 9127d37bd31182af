"""Rates with their intervals; edit counts three ways: by hand, against a textbook's plain table, against jiwer."""

import random
from dataclasses import replace

import jiwer
import numpy as np
import pytest

from dgasr.evaluation.scores import (
    MIN_SPEAKERS,
    EditCounts,
    ScoredSegment,
    ScoredUtterance,
    align,
    character_edits,
    count_edits,
    drawn_units,
    group_rows,
    non_speech_rows,
    ratio_interval,
    statistics_intervals,
    summarise,
)


def scored(reference, hypothesis, set_name="books", language="en", speaker=None):
    return ScoredUtterance(
        audio_filepath="a.wav", language=language, audio_s=2.0, reference=reference, hypothesis=hypothesis,
        set_name=set_name, speaker=speaker,
    )  # fmt: skip


UTTERANCES = [
    scored("one two three", "one two"),
    scored("four five", "four nine five", "calls"),
    scored("eins zwei", "eins drei", "calls_de", "de-DE"),
    scored("你好世界", "你好十界", "zh_set", "zh"),
]


def by_name(rows):
    return {(row["group"], row["name"]): row for row in rows}


def test_every_set_and_every_language_has_a_row():
    sets, languages = ("books", "calls", "calls_de", "zh_set"), ("de", "en", "zh")
    expected = [*(("set", name) for name in sets), *(("language", name) for name in languages)]
    assert [(row["group"], row["name"]) for row in group_rows(UTTERANCES, "basic")] == expected


def test_the_rate_of_a_group_is_that_of_jiwer():
    english = UTTERANCES[:2]
    expected = jiwer.wer([u.reference for u in english], [u.hypothesis for u in english])
    assert by_name(group_rows(UTTERANCES, "basic"))["language", "en"]["rate"] == pytest.approx(expected)


def test_chinese_is_scored_by_characters():
    row = by_name(group_rows(UTTERANCES, "basic"))["set", "zh_set"]
    assert (row["metric"], row["rate"], row["edits"]["reference_words"]) == ("cer", 0.25, 4)


def test_utterances_of_no_set_are_in_their_language_only():
    rows = group_rows([scored("one", "one", set_name=None)], "basic")
    assert [row["group"] for row in rows] == ["language"]


def test_hindi_keeps_its_vowel_signs_under_whispers_normaliser():
    [row, _] = group_rows([scored("हिन्दी में", "हिन्द में", "hi", "hi")], "whisper")
    assert (row["rate"], row["normalizer"], row["keeps_marks"]) == (0.5, "basic", True)
    figures = summarise([scored("हिन्दी में", "हिन्द में", "hi", "hi")], "whisper")
    assert (figures["wer"], figures["wer_marks_kept"]) == (0.0, 0.5)


def test_a_space_is_a_character_in_english_and_not_in_chinese():
    assert character_edits(scored("a b", "a b"), "basic").reference_words == 3
    assert character_edits(scored("你 好", "你好", language="zh"), "basic").reference_words == 2


def test_punctuation_and_case_do_not_count_in_any_language():
    said = [
        scored("Über Nacht, sagte er.", "über nacht sagte er", "de", "de"),
        scored("Mr. Smith won't!", "mister smith will not"),
    ]
    assert [row["rate"] for row in group_rows(said, "whisper")] == [0.0] * 4


def test_enough_speakers_are_drawn_in_place_of_utterances():
    few = [scored("one", "one", speaker=f"s{n % (MIN_SPEAKERS - 1)}") for n in range(40)]
    many = [scored("one", "one", speaker=f"s{n % MIN_SPEAKERS}") for n in range(40)]
    assert [group_rows(u, "basic")[0]["interval_over"] for u in (few, many)] == ["utterances", "speakers"]


def test_speakers_are_counted():
    rows = group_rows([scored("one", "one", speaker=s) for s in ("a", "b", None, "a")], "basic")
    assert rows[0]["num_speakers"] == 2


def test_the_baseline_stands_beside_with_a_ratio():
    said = [scored("one two three four", "one two nine nine")] * 9
    other = [scored("one two three four", "one two three nine")] * 9
    row = group_rows(said, "basic", other)[0]
    assert (row["rate"], row["baseline_rate"], row["ratio"]) == (0.5, 0.25, 2.0)
    assert row["ratio_95"] == pytest.approx((2.0, 2.0))


def test_beside_a_baseline_without_errors_there_is_no_ratio():
    row = group_rows([scored("one", "two")], "basic", [scored("one", "one")])[0]
    assert (row["ratio"], row["ratio_95"]) == (None, None)


def heard(set_name, *segments, reference=""):
    return replace(
        scored(reference, "", set_name),
        segments=tuple(ScoredSegment(num_words=words, flags=flags) for words, flags in segments),
    )


def test_segments_with_words_are_counted_and_those_flagged():
    music = heard("music", (3, ("low_confidence",)), (1, ()), (0, ("ctc_empty",)))
    [row, _] = non_speech_rows([music])
    assert (row["num_segments"], row["with_words"], row["with_words_flagged"], row["num_words"]) == (3, 2, 1, 4)


def test_sets_come_first_and_all_last():
    rows = non_speech_rows([heard("noise"), heard("music", (1, ())), heard(None, (1, ()))])
    found = [(row["name"], row["with_words"], row["audio_s"]) for row in rows]
    assert found == [("music", 1, 2.0), ("noise", 0, 2.0), ("all", 2, 6.0)]


def test_utterances_with_a_reference_are_left_out():
    assert non_speech_rows([heard("books", (1, ()), reference="one")]) == []


def random_words(generator, longest=12):
    return [generator.choice(["one", "two", "three", "four"]) for _ in range(generator.randint(0, longest))]


def textbook_distance(reference, hypothesis):
    row = list(range(len(hypothesis) + 1))
    for i, said in enumerate(reference, 1):
        above, row = row, [i]
        for j, heard in enumerate(hypothesis, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (said != heard)))
    return row[-1]


@pytest.mark.parametrize(
    ("reference", "hypothesis", "counts"),
    [
        ("one two three", "one two three", EditCounts(0, 0, 0, 3)),
        ("one two three", "one three", EditCounts(0, 1, 0, 3)),
        ("one two three", "one two two three", EditCounts(0, 0, 1, 3)),
        ("one two three", "one nine three", EditCounts(1, 0, 0, 3)),
        ("one two three", "", EditCounts(0, 3, 0, 3)),
        ("", "one two", EditCounts(0, 0, 2, 0)),
    ],
)
def test_edits_counted_by_hand(reference, hypothesis, counts):
    assert count_edits(reference.split(), hypothesis.split()) == counts


def test_edits_are_as_few_as_the_textbook_finds_and_of_jiwers_kinds():
    generator = random.Random(1)
    for _ in range(300):
        reference, hypothesis = random_words(generator) or ["one"], random_words(generator)
        ours, theirs = (
            count_edits(reference, hypothesis),
            jiwer.process_words(" ".join(reference), " ".join(hypothesis)),
        )
        assert ours == EditCounts(theirs.substitutions, theirs.deletions, theirs.insertions, len(reference))
        assert ours.errors == textbook_distance(reference, hypothesis)


def test_character_edits_are_those_of_jiwer():
    generator = random.Random(3)
    for _ in range(100):
        reference, hypothesis = " ".join(random_words(generator) or ["one"]), " ".join(random_words(generator))
        assert count_edits(reference, hypothesis).rate == pytest.approx(jiwer.cer(reference, hypothesis))


def test_the_alignment_holds_the_counted_edits_and_every_word_once():
    generator = random.Random(4)
    for _ in range(300):
        reference, hypothesis = random_words(generator), random_words(generator)
        pairs, counts = align(reference, hypothesis), count_edits(reference, hypothesis)
        assert [i for i, _ in pairs if i is not None] == list(range(len(reference)))
        assert [j for _, j in pairs if j is not None] == list(range(len(hypothesis)))
        assert sum(j is None for _, j in pairs) == counts.deletions
        assert sum(i is None for i, _ in pairs) == counts.insertions
        both = [(i, j) for i, j in pairs if i is not None and j is not None]
        assert sum(reference[i] != hypothesis[j] for i, j in both) == counts.substitutions


def test_counts_are_added_before_they_are_divided():
    total = count_edits(["one"], ["two"]) + count_edits(["one"] * 9, ["one"] * 9)
    assert total.rate == pytest.approx(0.1)


def test_a_rate_without_reference_words_does_not_exist():
    assert count_edits([], ["one"]).rate is None


def test_an_hour_of_words_is_counted_at_once():
    generator = random.Random(5)
    reference = [generator.choice("abcdefgh") * 3 for _ in range(10_000)]
    assert count_edits(reference, reference[:5000] + reference[5001:]) == EditCounts(0, 1, 0, 10_000)


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
