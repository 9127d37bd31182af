from collections import Counter

import pytest

from dgasr.errors import ConfigError
from dgasr.training.manifests import EVERYTHING, Selection, Utterance, select_utterances


def said(set_name, language="en", count=1):
    return [
        Utterance(audio_filepath=f"{set_name}{n}.wav", duration=1.0, text="one", language=language, set_name=set_name)
        for n in range(count)
    ]


ROWS = [*said("books", count=100), *said("calls", count=3), *said("bücher", "de", 50)]


def test_everything_is_the_default():
    assert select_utterances(ROWS, EVERYTHING) == ROWS


def test_languages_and_sets_are_both_asked_for():
    assert {u.set_name for u in select_utterances(ROWS, Selection(languages=("en",)))} == {"books", "calls"}
    assert len(select_utterances(ROWS, Selection(sets=("calls", "bücher")))) == 53
    assert len(select_utterances(ROWS, Selection(languages=("de",), sets=("bücher",)))) == 50


def test_a_subset_is_named_without_its_corpus():
    rows = [*said("books test.clean"), *said("calls test.clean"), *said("books test.other"), *said(None)]
    chosen = select_utterances(rows, Selection(sets=("test.clean",)))
    assert [u.set_name for u in chosen] == ["books test.clean", "calls test.clean"]
    assert len(select_utterances(rows, Selection(sets=("books test.other",)))) == 1


def test_a_limit_is_spread_over_sets_and_small_sets_give_all():
    chosen = select_utterances(ROWS, Selection(limit=31))
    assert Counter(u.set_name for u in chosen) == {"books": 14, "calls": 3, "bücher": 14}


def test_a_share_is_spread_over_its_set():
    numbers = [ROWS.index(u) for u in select_utterances(ROWS, Selection(sets=("books",), limit=4))]
    assert numbers == [0, 25, 50, 75]


def test_without_sets_languages_share_the_limit():
    rows = [*said(None, "en", 20), *said(None, "de", 20)]
    assert Counter(u.language for u in select_utterances(rows, Selection(limit=6))) == {"en": 3, "de": 3}


def test_what_the_manifest_does_not_hold_is_refused_with_what_it_holds():
    with pytest.raises(ConfigError, match=r"--subset films: not in the manifest. It holds books, bücher, calls"):
        select_utterances(ROWS, Selection(sets=("films",)))
    with pytest.raises(ConfigError, match=r"--languages fr: .* It holds de, en"):
        select_utterances(ROWS, Selection(languages=("fr",)))


def test_a_set_in_another_language_is_refused():
    with pytest.raises(ConfigError, match="No utterance is of these sets"):
        select_utterances(ROWS, Selection(sets=("calls",), languages=("de",)))
