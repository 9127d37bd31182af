"""Lakes that earlier versions wrote are read for ever; `fixtures/` keeps a small one of each."""

from pathlib import Path

import pytest

from dgasr.lake.ledger import committed_recordings
from dgasr.lake.schema import TABLES, table_schema
from dgasr.lake.views import connect

FIXTURES = sorted((Path(__file__).parent / "fixtures").iterdir())


@pytest.fixture(params=FIXTURES, ids=lambda path: path.name)
def old_lake(request):
    """A lake with the recordings of `conftest.three_recordings`, and one more on the next day."""
    return str(request.param)


def ask(lake, query):
    with connect(lake) as connection:
        return connection.execute(query).fetchall()


def test_an_old_lake_gives_its_transcripts(old_lake):
    assert ask(old_lake, "select uri, status, text, num_words from latest_transcripts") == [
        ("/a/four.flac", "ok", "three", 1),
        ("/a/one.flac", "ok", "One two, two forty two", 5),
        ("/a/three.txt", "rejected", "", 0),
        ("/a/two.mp3", "partial", "three", 1),
    ]


def test_an_old_lake_is_searched(old_lake):
    found = [("/a/one.flac", 0), ("/a/one.flac", 2)]
    assert ask(old_lake, "select uri, segment_index from search('two')") == found
    is_compacted = old_lake.endswith("compacted")
    assert ask(old_lake, "select count(*) > 0 from posting_parts") == [(is_compacted,)]
    assert ask(old_lake, "select count(*) > 0 from unindexed_parts") == [(not is_compacted,)]


def test_columns_that_came_later_are_null_in_an_old_lake(old_lake):
    query = "select distinct audio_digest, read_s, coalesce(take, 0) from recordings"
    assert ask(old_lake, query) == [(None, None, 0)]
    assert ask(old_lake, "select run_id, rtfx, stage, num_attempts from runs") == [("run1", 4.0, None, None)]


def test_an_old_lake_is_not_transcribed_again(old_lake):
    assert len(committed_recordings(old_lake, "f00d")) == 4


def test_every_column_says_what_it_is_and_units_are_in_the_name():
    units = {"_s": "s", "_hz": "Hz", "_bytes": "byte", "_id": None, "_at": None}
    for table in TABLES:
        for field in table_schema(table):
            assert field.metadata[b"comment"], field.name
            for ending, unit in units.items():
                if unit and field.name.endswith(ending):
                    assert field.metadata[b"unit"].decode() == unit, field.name
