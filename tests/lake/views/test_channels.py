"""A recording of two people, each on a channel of their own: every view tells who says what."""

import pytest

from dgasr.errors import IntegrityError
from dgasr.lake.check import check_lake
from dgasr.lake.ledger import commit_shard
from tests.lake.conftest import ONE
from tests.lake.reading import ask

OTHER = [("speech", 0, 4, "three four", 0.9, ()), ("silence", 4, 10, "", None, ())]


def call(make_shard, **columns):
    """Make the rows of a recording whose channels are transcribed each by itself."""
    rows = make_shard(pieces=[*ONE, *OTHER], **columns)
    rows.recordings[0]["num_transcripts"] = 2
    for row in rows.segments[len(ONE) :]:
        row["channel"] = 1
    return rows


@pytest.fixture
def lake(empty_lake, make_shard):
    commit_shard(empty_lake, call(make_shard))
    return empty_lake


def test_each_channel_has_a_transcript_of_its_own(lake):
    columns = "channel, text, num_words, speech_s, decoded_s, num_flagged"
    assert ask(lake, f"select {columns} from latest_transcripts") == [
        (0, "One two, two forty two", 5, 8.0, 10.0, 1), (1, "three four", 2, 4.0, 10.0, 0),
    ]  # fmt: skip
    assert ask(lake, "select speech_s, dropped_s, round(speech_share, 2) from coverage") == [(12.0, 8.0, 0.6)]
    assert [fault for fault in check_lake(lake, is_deep=True).findings if fault.severity == "fault"] == []


def test_what_stands_beside_a_word_is_said_on_its_channel(lake):
    assert ask(lake, "select channel, text_before, text_after from search('forty')") == [(0, "One two, two", "")]
    assert ask(lake, "select channel, text_before, text_after from search('three')") == [(1, "", "")]
    assert ask(lake, "select channel, word, text_before from transcript_at('/a/one.flac', 1)") == [
        (0, "One", ""), (1, "three", ""),
    ]  # fmt: skip
    assert ask(lake, "select channel, start_s from phrase('three four')") == [(1, 0.0)]
    assert ask(lake, "select channel, count(*) from words group by channel order by channel") == [(0, 5), (1, 2)]
    assert ask(lake, "select channel, start_s from dropped_intervals order by all") == [(0, 6.0), (1, 4.0)]


def test_two_recipes_are_compared_channel_by_channel(lake, make_shard):
    commit_shard(lake, call(make_shard, recipe_id="beef"))
    assert ask(lake, "from word_differences('f00d', 'beef')") == []


@pytest.mark.parametrize(
    ("break_it", "what"),
    [
        (lambda rows: rows.segments.pop(), "num_segments"),
        (lambda rows: rows.segments[-1].update(end_s=9.0), "cover"),
        (lambda rows: rows.segments[-1].update(channel=0), "cover"),
        (lambda rows: rows.recordings[0].update(num_transcripts=3, dropped_s=18.0), "cover"),
    ],
)
def test_every_channel_is_covered_exactly(empty_lake, make_shard, break_it, what):
    rows = call(make_shard)
    break_it(rows)
    with pytest.raises(IntegrityError, match=f"s1: {what}"):
        commit_shard(empty_lake, rows)
