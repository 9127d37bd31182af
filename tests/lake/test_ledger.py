"""What is in the lake need not be done again."""

import os
from datetime import timedelta

import pytest
from dgasr.lake.manifests import Manifest, publish_manifest

from dgasr.errors import ConfigError, IntegrityError
from dgasr.lake.ledger import committed_recordings, held_rows
from dgasr.lake.table import commit_shard
from dgasr.store import objects


def test_a_lake_that_is_not_there_yet_holds_nothing(tmp_path):
    assert committed_recordings(str(tmp_path / "later"), "f00d") == set()


def test_rejected_recordings_are_held_too(small_lake, three_recordings):
    expected = {bytes.fromhex(row["recording_id"]) for row in three_recordings.recordings}
    assert committed_recordings(small_lake, "f00d") == expected


def test_another_recipe_holds_nothing(small_lake):
    assert committed_recordings(small_lake, "beef") == set()


def test_a_new_version_of_an_object_is_not_held(small_lake, make_shard):
    row = make_shard(etag="v2").recordings[0]
    assert bytes.fromhex(row["recording_id"]) not in committed_recordings(small_lake, "f00d")


def test_a_part_of_the_right_length_that_is_no_parquet_is_named(tmp_path, make_shard):
    part = commit_shard(str(tmp_path), make_shard()).commit.parts[1]
    (tmp_path / part.key).write_bytes(os.urandom(part.size_bytes))
    with pytest.raises(IntegrityError, match=f"{part.key}: cannot be read"):
        committed_recordings(str(tmp_path), "f00d")


def test_a_recipe_that_is_being_removed_is_not_transcribed_with(tmp_path, make_shard):
    commit_shard(str(tmp_path), make_shard())
    publish_manifest(objects, str(tmp_path), Manifest().next([], [], ["f00d"]))
    with pytest.raises(ConfigError, match="recipe f00d was superseded"):
        committed_recordings(str(tmp_path), "f00d")


def test_what_is_said_of_held_recordings_comes_in_the_columns_asked_for(small_lake):
    rows = held_rows(small_lake, "f00d", ["uri", "status", "take"])
    assert sorted(map(tuple, (row.values() for row in rows.to_pylist()))) == [
        ("/a/one.flac", "ok", 0),
        ("/a/three.txt", "rejected", 0),
        ("/a/two.mp3", "partial", 0),
    ]


def test_nothing_is_said_of_a_lake_that_is_not_there_yet(tmp_path):
    assert held_rows(str(tmp_path), "f00d", ["uri", "take"]).to_pylist() == []


def test_of_several_takes_the_highest_counts_and_of_equal_ones_the_first(tmp_path, make_shard, day):
    lake, hour = str(tmp_path), timedelta(hours=1)
    for shard_id, take, at in [("a", 0, day), ("b", 1, day + 2 * hour), ("c", 1, day + hour), ("d", None, day)]:
        rows = make_shard(shard_id=shard_id, transcribed_at=at)
        rows.recordings[0]["take"] = take
        commit_shard(lake, rows)
    commit_shard(lake, make_shard(shard_id="e", uri="/a/two"))
    rows = held_rows(lake, "f00d", ["uri", "shard_id", "take", "date"]).sort_by("uri").to_pylist()
    assert [tuple(row.values())[:3] for row in rows] == [("/a/one.flac", "c", 1), ("/a/two", "e", 0)]
    assert rows[0]["date"] == day.date()
