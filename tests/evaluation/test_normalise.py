import logging

import pytest

from dgasr.errors import ConfigError
from dgasr.evaluation.normalise import basic, loses_marks, normalise, spelling_table


@pytest.fixture(autouse=True)
def no_model_in_the_cache(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_case_and_punctuation_do_not_matter():
    assert basic("  Hello, WORLD! (yes) — “ok” 3.5% ") == "hello world yes ok 3 5"


def test_apostrophes_stay_inside_words_and_nowhere_else():
    assert basic("Don\N{RIGHT SINGLE QUOTATION MARK}t say 'stop' 'til it's over'") == "don't say stop til it's over"


def test_the_plain_way_keeps_spoken_digits_apart():
    assert normalise("one two three", "en", "basic") == ("one", "two", "three")


@pytest.mark.parametrize("normalizer", ["whisper", "basic"])
def test_marks_that_nobody_sees_are_no_words(normalizer):
    assert normalise("one \u200b t\u200dwo \u202ethree\u202c", "de", normalizer) == ("one", "two", "three")


def test_whispers_way_joins_spoken_digits():
    assert normalise("one two three", "en-US", "whisper") == ("123",)


def test_whispers_way_spells_contractions_out():
    assert normalise("Mr. Smith won't", "en", "whisper") == ("mister", "smith", "will", "not")


def test_the_plain_way_keeps_devanagari_vowel_signs():
    assert normalise("हिन्दी में।", "hi", "basic") == ("हिन्दी", "में")


def test_whispers_way_takes_devanagari_vowel_signs_out():
    assert normalise("हिन्दी", "hi", "whisper") == ("ह", "न", "द")


@pytest.mark.parametrize(
    ("text", "language", "loses"), [("हिन्दी", "hi", True), ("über", "de", False), ("नमस्ते", "en", False)]
)
def test_lost_marks_are_noticed(text, language, loses):
    assert loses_marks(text, language) is loses


@pytest.mark.parametrize("normalizer", ["whisper", "basic"])
def test_characters_are_the_words_of_chinese(normalizer):
    assert normalise("你好。世界", "cmn_hans", normalizer) == ("你", "好", "世", "界")


@pytest.mark.parametrize("normalizer", ["whisper", "basic"])
def test_text_without_words_has_none(normalizer):
    assert normalise(" , ", "en", normalizer) == ()


def test_the_leaderboard_joins_letters_with_dots_and_drops_ellipses():
    assert normalise("The U.S. and A. B. C. ... all", "en", "leaderboard") == ("the", "us", "and", "abc", "all")
    assert normalise("It was a. I saw e.g. one.", "en", "leaderboard") == ("it", "was", "a", "i", "saw", "eg", "one")
    assert "us" not in normalise("the U.S. and", "en", "whisper")


def test_an_unknown_normaliser_is_refused():
    with pytest.raises(ConfigError, match="Choose one of whisper, basic"):
        normalise("", "en", "nemo")


def test_a_missing_spelling_table_is_not_silent(monkeypatch, caplog):
    def not_cached(*_, **__):
        raise OSError

    monkeypatch.setattr("transformers.utils.cached_file", not_cached)
    spelling_table.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert spelling_table() == {}
    assert "hf download openai/whisper-small normalizer.json" in caplog.text
    spelling_table.cache_clear()
