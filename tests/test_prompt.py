import random

import pytest

from dgasr.errors import ConfigError
from dgasr.model.presets import full, tiny
from dgasr.prompt import Spelling, Tokenizer, WordList, build_prompt, canvas_ids


class ByteTokenizer:
    """A tokenizer of UTF-8 bytes: characters take several tokens, words any number."""

    def encode(self, text, add_special_tokens):
        return list(text.encode())

    def decode(self, ids, skip_special_tokens):
        return bytes(ids).decode(errors="replace")


def test_text_survives_encoding_without_special_tokens_and_every_word_knows_its_tokens(tokenizer):
    assert tokenizer.decode([0, *tokenizer.encode("seven zero nine"), 8, 0]) == "seven zero nine"
    assert tokenizer.words(tokenizer.encode("one two two")) == [("one", 0, 1), ("two", 1, 2), ("two", 2, 3)]
    with pytest.raises(ConfigError, match="eleven twelve"):
        tokenizer.encode("one twelve eleven")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no", [("no", 0, 2)]),
        ("so it", [("so", 0, 2), ("it", 3, 5)]),
        ("für uns", [("für", 0, 4), ("uns", 5, 8)]),
        ("你好", [("你", 0, 3), ("好", 3, 6)]),
        ("ดี", [("ดี", 0, 6)]),  # a letter with its vowel
        ("你\u3000好", [("你", 0, 3), ("好", 6, 9)]),
        ("", []),
    ],
)
def test_words_of_tokens_smaller_than_characters(text, words):
    tokenizer = Tokenizer(ByteTokenizer(), None)
    assert tokenizer.words(tokenizer.encode(text)) == words


def test_the_prompt_has_a_slot_for_every_audio_token(tokenizer):
    config = tiny()
    prompt = build_prompt(tokenizer, config.prompt, config.num_audio_tokens, "en")
    slots = [index for index, token in enumerate(prompt) if token == config.prompt.audio_id]
    assert slots == list(range(slots[0], slots[0] + 50))
    assert prompt[slots[0] - 1] == config.prompt.begin_audio_id
    assert prompt[slots[-1] + 1] == config.prompt.end_audio_id


def test_the_language_stands_in_the_full_prompt():
    config = full()
    prompt = build_prompt(Tokenizer(ByteTokenizer(), None), config.prompt, 188, "hi")
    assert "Hindi" in bytes(token for token in prompt if token < 256).decode()


def test_a_canvas_is_text_then_end_then_pads_if_they_fit():
    assert canvas_ids([9, 10], 5, end_id=8, pad_id=0) == [9, 10, 8, 0, 0]
    with pytest.raises(ConfigError, match="do not fit"):
        canvas_ids([9, 10], 2, end_id=8, pad_id=0)


WORDS = WordList(["rain", "rainbow", "bow", "a", "i'd"])


@pytest.mark.parametrize("letters", ["", "r", "rainb", "rainbow", "i'", "a"])
def test_beginnings_are_found(letters):
    assert WORDS.has_beginning(letters)


@pytest.mark.parametrize("letters", ["x", "rainbows", "rainc", "A", "zzz"])
def test_what_begins_no_word_is_not(letters):
    assert not WORDS.has_beginning(letters)


def test_a_text_that_grows_counts_what_the_whole_text_does():
    rng = random.Random(0)
    pieces = [" rain", "bow", " a", "s", " i", "'d", " bo", "w a", " ", "rain"]
    for _ in range(200):
        spelling, text = Spelling(), ""
        for _ in range(rng.randrange(1, 9)):
            piece = rng.choice(pieces)
            spelling, text = spelling.extended(piece, WORDS), text + piece
            assert spelling.num_finished(WORDS) == WORDS.num_unknown(text)
            finished, _, word = text.rpartition(" ")
            is_lost = not any(known.startswith(word) for known in ("rain", "rainbow", "bow", "a", "i'd"))
            assert spelling.num_unfinished(WORDS) == WORDS.num_unknown(finished) + is_lost


def test_a_list_is_read_as_it_was_written(tmp_path):
    WORDS.save(tmp_path / "words.txt")
    assert (tmp_path / "words.txt").read_text().split() == sorted(["rain", "rainbow", "bow", "a", "i'd"])
    assert "rainbow" in WordList.load(tmp_path / "words.txt")
    assert "rainbo" not in WordList.load(tmp_path / "words.txt")
