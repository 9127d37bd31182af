"""What is in the lake need not be done again."""

import os

import pytest

from dgasr.errors import IntegrityError
from dgasr.lake.ledger import committed_recordings
from dgasr.lake.parts import commit_shard
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
    part = commit_shard(objects, str(tmp_path), make_shard()).commit.parts[1]
    (tmp_path / part.key).write_bytes(os.urandom(part.size_bytes))
    with pytest.raises(IntegrityError, match=f"{part.key}: cannot be read"):
        committed_recordings(str(tmp_path), "f00d")
