import logging

import pytest

from dgasr.errors import ConfigError
from dgasr.evaluation.normalise import loses_marks, normalise, spelling_table


@pytest.fixture(autouse=True)
def no_model_in_the_cache(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize(
    ("text", "language", "normalizer", "words"),
    [
        ("  Hello, WORLD! (yes) — “ok” 3.5% ", "en", "basic", "hello world yes ok 3 5"),
        # Apostrophes stay inside words and nowhere else.
        (
            "Don\N{RIGHT SINGLE QUOTATION MARK}t say 'stop' 'til it's over'",
            "en",
            "basic",
            "don't say stop til it's over",
        ),
        ("one two three", "en", "basic", "one two three"),
        ("one two three", "en-US", "whisper", "123"),
        ("Mr. Smith won't", "en", "whisper", "mister smith will not"),
        # Marks that nobody sees are no words.
        ("one \u200b t\u200dwo \u202ethree\u202c", "de", "whisper", "one two three"),
        ("one \u200b t\u200dwo \u202ethree\u202c", "de", "basic", "one two three"),
        ("I ❤\ufe0f you \u3164", "en", "basic", "i you"),
        ("葛\U000e0100飾", "ja", "basic", "葛 飾"),
        # The plain way keeps Devanagari's vowel signs, Whisper's takes them out.
        ("हिन्दी में।", "hi", "basic", "हिन्दी में"),
        ("हिन्दी", "hi", "whisper", "ह न द"),
        # Characters are the words of Chinese.
        ("你好。世界", "cmn_hans", "whisper", "你 好 世 界"),
        ("你好。世界", "cmn_hans", "basic", "你 好 世 界"),
        (" , ", "en", "whisper", ""),
        (" , ", "en", "basic", ""),
        # The leaderboard joins letters with dots, and drops ellipses.
        ("The U.S. and A. B. C. ... all", "en", "leaderboard", "the us and abc all"),
        ("It was a. I saw e.g. one.", "en", "leaderboard", "it was a i saw eg one"),
        # Nothing is made equal: what is counted is what people read.
        ("Mr. Smith  won't ​, 12", "en", "none", "Mr. Smith won't , 12"),
        ("你好。", "zh", "none", "你 好 。"),
    ],
)
def test_text_becomes_the_words_that_are_compared(text, language, normalizer, words):
    assert normalise(text, language, normalizer) == tuple(words.split())


@pytest.mark.parametrize(
    ("text", "language", "loses"), [("हिन्दी", "hi", True), ("über", "de", False), ("नमस्ते", "en", False)]
)
def test_lost_marks_are_noticed(text, language, loses):
    assert loses_marks(text, language) is loses


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
