import pytest

from dgasr.alignment.flags import Flag, flag_segment, longest_run
from dgasr.alignment.words import AlignmentConfig
from dgasr.records import Word

CONFIG = AlignmentConfig()


def words(text, each_s=0.4):
    length = round(each_s * 16_000)
    return [
        Word(word=word, start_sample=position * length, end_sample=(position + 1) * length, confidence=0.9)
        for position, word in enumerate(text.split())
    ]


def flags(text, ctc_text=None, confidence=0.9, each_s=0.4, is_settled=True, is_overflow=False):
    heard = (text if ctc_text is None else ctc_text).split()
    return flag_segment(
        words(text, each_s), heard, confidence, is_settled=is_settled, is_overflow=is_overflow, config=CONFIG
    )


def test_a_segment_that_all_agree_on_has_no_flags():
    assert flags("one two three") == ()


def test_an_empty_text_that_all_agree_on_has_no_flags():
    assert flags("") == ()


def test_words_where_ctc_hears_nothing_are_no_speech():
    assert Flag.NO_SPEECH in flags("one", "")


def test_ctc_hearing_words_in_an_empty_text_is_a_disagreement():
    assert flags("", "one two") == (Flag.CTC_DISAGREES,)


def test_more_words_a_second_than_anybody_speaks_are_too_fast():
    assert flags("one two three four five six seven eight nine", each_s=0.12) == (Flag.TOO_FAST,)


def test_one_clipped_word_is_not_too_fast():
    assert flags("one", each_s=0.05) == ()


def test_a_loop_that_ctc_does_not_hear_is_a_repetition():
    assert Flag.REPETITION in flags("so it is so it is so it is so it is", "so it is so it")


def test_a_loop_that_ctc_hears_too_was_said():
    assert flags("so it is so it is so it is so it is") == ()


def test_one_word_over_and_over_is_a_repetition():
    assert Flag.REPETITION in flags("no " * 6, "no no")


def test_four_zeros_are_a_number():
    assert flags("zero zero zero zero one", "zero zero zero one") == ()


def test_largely_other_words_are_a_disagreement():
    assert flags("one two three", "four five three") == (Flag.CTC_DISAGREES,)


def test_one_other_word_of_three_is_not():
    assert flags("one two three", "one five three") == ()


def test_low_confidence_is_flagged():
    assert flags("one", confidence=0.4) == (Flag.LOW_CONFIDENCE,)


def test_an_unsettled_canvas_is_flagged():
    assert flags("one", is_settled=False) == (Flag.UNSETTLED,)


def test_a_text_that_fills_the_largest_canvas_is_flagged():
    assert flags("one", is_overflow=True) == (Flag.OVERFLOW,)


def test_flags_are_plain_text_for_the_lake():
    (flag,) = flags("one", confidence=0.4)
    assert type(flag) is str


@pytest.mark.parametrize(
    ("text", "period", "run"),
    [("", 1, 1), ("a b", 1, 1), ("a a a", 1, 3), ("x a b a b a c", 2, 2), ("a b a b a b", 2, 3)],
)
def test_longest_run_counts_whole_phrases(text, period, run):
    assert longest_run(text.split(), period) == run
