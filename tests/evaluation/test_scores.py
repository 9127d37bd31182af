from dataclasses import replace

import jiwer
import pytest

from dgasr.evaluation.interval import MIN_SPEAKERS
from dgasr.evaluation.scores import (
    ScoredSegment,
    ScoredUtterance,
    character_edits,
    group_rows,
    non_speech_rows,
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
