"""What is in the lake need not be done again."""

import os
from datetime import timedelta

import pytest

from dgasr.errors import IntegrityError
from dgasr.lake.commit import append_rows, commit_shard
from dgasr.lake.ledger import absent_uris, committed_recordings, recording_rows
from dgasr.lake.rows import presence_rows
from tests.lake.reading import file_of


def test_rejected_recordings_are_held_too(small_lake, three_recordings):
    expected = {bytes.fromhex(row["recording_id"]) for row in three_recordings.recordings}
    assert committed_recordings(small_lake, "f00d") == expected


def test_a_file_of_the_right_length_that_is_no_parquet_is_named(tmp_path, make_shard):
    commit_shard(str(tmp_path), make_shard())
    path = file_of(tmp_path, "recording")
    path.write_bytes(os.urandom(path.stat().st_size))
    with pytest.raises(IntegrityError, match=f"{path}: cannot be read"):
        committed_recordings(str(tmp_path), "f00d")


def test_recordings_come_with_the_columns_asked_for_those_of_the_path_too(small_lake, tmp_path, day):
    columns = ("uri", "status", "take", "date")
    assert sorted(recording_rows(small_lake, columns, recipe_id="f00d")) == [
        ("/a/one.flac", "ok", 0, day.date()),
        ("/a/three.txt", "rejected", 0, day.date()),
        ("/a/two.mp3", "partial", 0, day.date()),
    ]
    assert list(recording_rows(small_lake, columns, recipe_id="beef")) == []
    assert list(recording_rows(str(tmp_path), columns)) == []  # a lake that is not there yet


def test_what_came_back_is_not_absent_until_it_is_gone_again(empty_lake, day):
    assert absent_uris(f"{empty_lake}/none") == set()
    for hour, (event, uris) in enumerate([("deleted", "ab"), ("returned", "a"), ("deleted", "a")]):
        at = day + timedelta(hours=hour)
        rows = presence_rows([(uri, None) for uri in uris], event, noticed_at=at, run_id=f"r{hour}")
        append_rows(empty_lake, "presence", rows)
        assert absent_uris(empty_lake) == [{"a", "b"}, {"b"}, {"a", "b"}][hour]
