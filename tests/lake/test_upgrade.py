"""Lakes of the format before Delta Lake are copied whole; `fixtures/` keeps some that earlier versions wrote."""

import json
import shutil
from pathlib import Path

import pytest

from dgasr.errors import ConfigError, IntegrityError
from dgasr.lake.check import check_lake
from dgasr.lake.commit import commit_transcripts
from dgasr.lake.ledger import absent_uris, committed_recordings
from dgasr.lake.schema import TABLES, VIEWS, table_schema
from dgasr.lake.upgrade import upgrade_lake
from tests.lake.reading import ask, rows_of

FIXTURES = Path(__file__).parent / "fixtures"
WITH_REDOES = FIXTURES / "lake-2026-11-29"
"""Of the last commit before Delta Lake: merged, with a forced redo, one under another date, two recipes, and a
recording that two plans put into two shards."""


@pytest.fixture(params=["lake-2026-11-21", "lake-2026-11-22-compacted"])
def upgraded(request, tmp_path):
    """A lake with the recordings of `conftest.three_recordings`, and one more on the next day, upgraded."""
    upgrade_lake(str(FIXTURES / request.param), str(tmp_path / "new"))
    return str(tmp_path / "new")


def test_an_upgraded_lake_gives_its_transcripts(upgraded):
    assert ask(upgraded, "select uri, status, text, num_words from latest_transcripts") == [
        ("/a/four.flac", "ok", "three", 1),
        ("/a/one.flac", "ok", "One two, two forty two", 5),
        ("/a/three.txt", "rejected", "", 0),
        ("/a/two.mp3", "partial", "three", 1),
    ]
    assert ask(upgraded, "select uri, segment_index from search('two')") == [("/a/one.flac", 0), ("/a/one.flac", 2)]


def test_columns_that_came_later_are_null(upgraded):
    query = "select distinct audio_digest, read_s, coalesce(take, 0) from recordings"
    assert ask(upgraded, query) == [(None, None, 0)]
    assert ask(upgraded, "select run_id, rtfx, stage, num_attempts from runs") == [("run1", 4.0, None, None)]


def test_an_upgraded_lake_is_sound_and_not_transcribed_again(upgraded):
    assert check_lake(upgraded, is_deep=True).findings == ()
    assert len(committed_recordings(upgraded, "f00d")) == 4


def test_of_several_sets_of_rows_the_one_that_counts_is_copied(tmp_path):
    new = str(tmp_path / "new")
    done = upgrade_lake(str(WITH_REDOES), new)
    assert done.line() == (
        "5 recordings and 3 rows of other tables were copied; 3 superseded sets of rows were left behind"
    )
    assert ask(new, 'select recipe_id, uri, shard_id, take, "date"::varchar from recordings order by all') == [
        ("beef", "/a/one.flac", "s1", 0, "2026-01-02"),
        ("f00d", "/a/four.flac", "s2", 0, "2026-01-03"),
        ("f00d", "/a/one.flac", "s4", 2, "2026-01-04"),
        ("f00d", "/a/three.txt", "s1", 0, "2026-01-02"),
        ("f00d", "/a/two.mp3", "s1", 0, "2026-01-02"),
    ]
    said = (
        "select recipe_id, string_agg(text, '|' order by segment_index) from segments group by recipe_id, recording_id"
    )
    assert sorted(ask(new, said)) == [
        ("beef", "One two, two||forty two"),
        ("f00d", "One two, two||forty two"),
        ("f00d", "one two forty three"),
        ("f00d", "three|"),
    ]
    assert absent_uris(new) == {"/a/two.mp3"}
    assert check_lake(new, is_deep=True).num_faults == 0


def test_an_upgrade_that_was_killed_is_finished_by_the_next_one(tmp_path, monkeypatch):
    whole, new = str(tmp_path / "whole"), str(tmp_path / "new")
    upgrade_lake(str(WITH_REDOES), whole)
    calls = iter(range(2))

    def dying(*arguments):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return commit_transcripts(*arguments)

    monkeypatch.setattr("dgasr.lake.upgrade.commit_transcripts", dying)
    with pytest.raises(KeyboardInterrupt):
        upgrade_lake(str(WITH_REDOES), new)
    monkeypatch.undo()
    upgrade_lake(str(WITH_REDOES), new)
    assert rows_of(new) == rows_of(whole)
    upgrade_lake(str(WITH_REDOES), new)
    assert rows_of(new) == rows_of(whole)


def test_an_upgrade_leaves_the_old_lake_as_it_was(tmp_path):
    old = tmp_path / "old"
    shutil.copytree(WITH_REDOES, old)
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    upgrade_lake(str(old), str(tmp_path / "new"))
    assert {path: path.read_bytes() for path in old.rglob("*") if path.is_file()} == before
    with pytest.raises(ConfigError, match="is copied, not changed"):
        upgrade_lake(str(old), f"{old}/")


def test_what_nobody_committed_is_not_copied(tmp_path):
    old = tmp_path / "old"
    shutil.copytree(FIXTURES / "lake-2026-11-21", old)
    next(old.glob("commits/*/s2.json")).unlink()
    assert upgrade_lake(str(old), str(tmp_path / "new")).num_recordings == 3


def test_an_old_lake_that_lacks_a_part_is_refused(tmp_path):
    old = tmp_path / "old"
    shutil.copytree(FIXTURES / "lake-2026-11-21", old)
    next(old.glob("segments/*/date=2026-01-02/*")).unlink()
    with pytest.raises(IntegrityError, match="a part is missing"):
        upgrade_lake(str(old), str(tmp_path / "new"))


def test_segments_that_are_not_all_there_are_refused(tmp_path):
    old = tmp_path / "old"
    shutil.copytree(FIXTURES / "lake-2026-11-21", old)
    commit = next(old.glob("commits/*/s1.json"))
    fields = json.loads(commit.read_text())
    commit.write_text(json.dumps(fields | {"parts": [p for p in fields["parts"] if p["table"] == "recordings"]}))
    with pytest.raises(IntegrityError, match="Mend the old lake first"):
        upgrade_lake(str(old), str(tmp_path / "new"))


def test_a_new_lake_needs_no_upgrade(small_lake, tmp_path):
    with pytest.raises(ConfigError, match="needs no upgrade"):
        upgrade_lake(small_lake, str(tmp_path / "new"))


def test_every_column_says_what_it_is_and_units_are_in_the_name():
    units = {"_s": "s", "_hz": "Hz", "_bytes": "byte", "_id": None, "_at": None}
    for name in (*TABLES, *VIEWS):
        for field in table_schema(name):
            assert field.metadata[b"comment"], field.name
            for ending, unit in units.items():
                if unit and field.name.endswith(ending):
                    assert field.metadata[b"unit"].decode() == unit, field.name
