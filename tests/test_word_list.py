"""Counts of unknown words in texts as they grow, against splitting them whole."""

import random

import pytest

from dgasr.prompt import Spelling, WordList

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
