"""What is found of what was said: `search`, `phrase` and `transcript_at`, with answers computed by hand."""

import math
import re
from datetime import timedelta

import pytest

from dgasr.lake.ledger import commit_shard
from dgasr.lake.views import connect
from dgasr.records import UNSPACED, join_words
from tests.lake.reading import ask


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        (  # the phrase first, and neighbours
            "select uri, start_s, end_s, text_before, text, text_after from search('Forty two!')",
            [
                ("/a/one.flac", 8.0, 10.0, "One two, two", "forty two", ""),
                ("/a/one.flac", 0.0, 6.0, "", "One two, two", "forty two"),
            ],
        ),
        ("select text from search('forty two', max_results := 1)", [("forty two",)]),
        *((f"from {nothing}", []) for nothing in ("search('fort')", "search('wo')", "search('')", "phrase('')")),
        ("select uri, start_s, end_s, segment_index from phrase('TWO two')", [("/a/one.flac", 2.0, 6.0, 0)]),
        ("select start_s, end_s, text from phrase('forty')", [(8.0, 9.0, "forty two")]),
        ("from phrase('two forty')", []),  # which would go on in the next segment
        (
            "select start_s, text, word, word_start_s, word_end_s, text_before, text_after "
            "from transcript_at('/a/one.flac', 4)",
            [(0.0, "One two, two", "two", 4.0, 6.0, "", "")],
        ),
        ("select kind, word from transcript_at('/a/one.flac', 7.9)", [("silence", None)]),
        ("from transcript_at('/a/one.flac', 10)", []),
        (
            "select terms('L''Élan, 21!'), terms('我说OK'), terms(''), terms('Twenty-one')",
            [(["l", "élan", "21"], ["我", "说", "ok"], [], ["twenty", "one"])],
        ),
    ],
)
def test_what_was_said_is_found_where_it_was_said_and_nothing_else(small, query, answer):
    assert small(query) == answer


def test_letters_beyond_ascii_and_parts_of_a_hyphenated_word_are_found(empty_lake, make_shard):
    commit_shard(empty_lake, make_shard(pieces=[("speech", 0, 2, "L'Élan du café", 1.0, ())]))
    commit_shard(empty_lake, make_shard("s2", "/a/two.flac", pieces=[("speech", 0, 2, "Twenty-one!", 1.0, ())]))
    with connect(empty_lake) as connection:
        found = {
            term: len(connection.execute(f"from search('{term}')").fetchall())
            for term in ("élan", "lan", "CAFÉ", "caf", "l", "twenty one")
        }
        times = connection.execute("select start_s, end_s from phrase('twenty one')").fetchall()
    assert found == {"élan": 1, "lan": 0, "CAFÉ": 1, "caf": 0, "l": 1, "twenty one": 1}
    assert times == [(0.0, 2.0)]


def test_the_score_is_bm25_and_once_more_the_weights_for_the_phrase(small):
    # 5 segments of 26 bytes; two holds in 2 of them, forty in 1. Of those that match one has 9 bytes, the other 12.
    two, forty = math.log(1 + 3.5 / 2.5), math.log(1 + 4.5 / 1.5)
    best = (two + forty) * 2.2 / (1 + 1.2 * (0.25 + 0.75 * 9 / 5.2)) + two + forty
    other = two * 2 * 2.2 / (2 + 1.2 * (0.25 + 0.75 * 12 / 5.2))
    assert [score for (score,) in small("select score from search('forty two')")] == pytest.approx([best, other])
    assert small("select max(score) from search('two')") == [(pytest.approx(other),)]  # one word is no phrase


def test_a_longer_segment_scores_less_against_the_mean_of_all(empty_lake, make_shard):
    texts = ["four five", "one", "one two three four five six"]  # 39 bytes in 3 segments
    pieces = [("speech", n, n + 1, text, 1.0, ()) for n, text in enumerate(texts)]
    commit_shard(empty_lake, make_shard(pieces=pieces))
    one = math.log(1 + 1.5 / 2.5)
    scores = [one * 2.2 / (1 + 1.2 * (0.25 + 0.75 * num_bytes / 13)) for num_bytes in (3, 27)]
    assert ask(empty_lake, "select text, score from search('one')") == [
        (texts[1], pytest.approx(scores[0])),
        (texts[2], pytest.approx(scores[1])),
    ]


def test_segments_that_score_the_same_stand_in_the_order_of_the_archive(empty_lake, make_shard):
    for number in (2, 1):
        pieces = [("speech", 0, 3, "one six two", 0.5, ()), ("speech", 3, 6, "two six one", 0.9, ())]
        commit_shard(empty_lake, make_shard(shard_id=f"s{number}", uri=f"/a/{number}.flac", pieces=pieces))
    found = ask(empty_lake, "select uri, segment_index from search('one two', max_results := 3)")
    assert found == [("/a/1.flac", 0), ("/a/1.flac", 1), ("/a/2.flac", 0)]


def test_the_case_of_what_was_said_and_asked_makes_no_difference(empty_lake, make_shard):
    commit_shard(empty_lake, make_shard(pieces=[("speech", 0, 2, "One TWO one", 1.0, ())]))
    (shouted,), (whispered,) = (
        ask(empty_lake, f"select score from search('{query}')") for query in ("TWO oNe", "two one")
    )
    assert shouted == whispered


def test_words_that_stand_as_asked_lead_where_each_is_as_frequent(empty_lake, make_shard):
    pieces = [("speech", 0, 3, "two one six", 0.9, ()), ("speech", 3, 6, "one, two six", 0.5, ())]
    commit_shard(empty_lake, make_shard(pieces=pieces))
    assert ask(empty_lake, "select text from search('one two')") == [("one, two six",), ("two one six",)]


def test_neighbours_are_those_of_the_recipe_that_was_found(empty_lake, make_shard):
    for recipe_id, neighbour in {"f00d": "newer", "beef": "older"}.items():
        pieces = [("speech", 0, 1, neighbour, 1.0, ()), ("speech", 1, 2, "one", 1.0, ())]
        transcribed_at = make_shard().recordings[0]["transcribed_at"] - timedelta(days=recipe_id == "beef")
        shard = make_shard(recipe_id=recipe_id, pieces=pieces, transcribed_at=transcribed_at)
        commit_shard(empty_lake, shard)
    assert ask(empty_lake, "select text_before, text from search('one')") == [("newer", "one")]


@pytest.mark.parametrize(
    ("text", "query", "is_found"),
    [
        ("我说你好吗", "你好", True),
        ("我说你好吗", "好你", False),
        ("हिन्दी में बात", "हिन्दी", True),
        ("हिन्दी में बात", "न्दी", False),
        ("cafe\u0301", "café", True),
        ("café", "CAFE\u0301", True),
        ("STRASSE Straße", "straße", True),
    ],
)
def test_a_phrase_is_found_in_the_scripts_of_all_languages(empty_lake, make_shard, text, query, is_found):
    commit_shard(empty_lake, make_shard(pieces=[("speech", 0, 2, text, 1.0, ())]))
    assert len(ask(empty_lake, f"from phrase('{query}')")) == is_found
    best = ask(empty_lake, f"select score > (select max(score) from search('{query} x')) from search('{query}')")
    assert len(best) == is_found or len(query) == 2


@pytest.mark.parametrize(
    ("text", "query", "is_said"),
    [
        ("One, two_three", "two three", True),
        ("One two", "wo", False),
        ("One two", "two one", False),
        ("one two", "", False),
        ("Straße, 好你", "straße 好", True),
        # Writings without spaces, and what nobody sees.
        ("どうもありがとうございます", "ありがとう", True),
        ("コーヒーを飲む", "コーヒー", True),
        ("สวัสดีครับ", "ครับ", True),
        ("สวัสดีครับ", "ด", False),  # which has a vowel there
        ("ខ្ញុំ\u200bស្រឡាញ់", "ស្រឡាញ់", True),
        ("葛\U000e0100飾区", "葛飾", True),
        ("hy\u00adphen", "hyphen", True),
        ("क्\u200dष", "क्ष", True),
    ],
)
def test_a_text_says_words_that_follow_each_other_in_it(small, text, query, is_said):
    assert small(f"select says('{text}', '{query}')") == [(is_said,)]


def test_texts_are_joined_as_their_writing_has_it(small):
    for texts in (["今天", "很好", "ok", "then"], ["ខ្ញុំ\u200b", "ភាសា"], ["葛\U000e0100", "飾"], ["a", "é"], ["a", "b"]):
        assert small("select joined(['" + "', '".join(texts) + "'])") == [(join_words(texts),)]


def test_sql_and_python_take_the_same_writings_for_such_without_spaces(small):
    ranges = re.findall(r"(.)-(.)", UNSPACED)
    spelled = "".join(rf"\x{{{ord(first):04X}}}-\x{{{ord(last):04X}}}" for first, last in ranges)
    assert small("select unspaced()") == [(f"[{spelled}]",)]
