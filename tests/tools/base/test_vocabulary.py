import pytest

from tools.base.vocabulary import is_spoken_form, plain, train_pieces


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He didn't -- 'no!' -- say \"so\".", "he didn't no say so"),
        ("Don\u2019t", "don't"),
        ("Straße, ÉTÉ", "straße été"),
        ("…", ""),
    ],
)
def test_plain_text_is_words_in_lower_case(text, expected):
    assert plain(text) == expected


def test_text_with_digits_can_be_read_in_several_ways():
    assert not is_spoken_form("in 1905")
    assert is_spoken_form("in nineteen oh five")


def test_pieces_are_only_those_that_gemma_has_too():
    gemma = {"▁", *"abn", "▁b", "an", "▁ban"}
    pieces, merges = train_pieces(["banana ban bana"] * 20, 40, gemma)
    assert set(pieces) <= gemma
    assert {left + right for left, right in merges} <= gemma
    assert all(left in pieces and right in pieces for left, right in merges)
