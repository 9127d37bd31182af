"""What is in the lake need not be done again."""

import os
from datetime import timedelta

import pytest

from dgasr.errors import IntegrityError
from dgasr.lake.commit import append_rows, commit_shard
from dgasr.lake.ledger import absent_uris, committed_recordings, held_rows
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


def test_what_is_said_of_held_recordings_comes_in_the_columns_asked_for(small_lake):
    rows = held_rows(small_lake, "f00d", ["recording_id", "uri", "status", "take"])
    assert sorted(map(tuple, (list(row.values())[1:] for row in rows.to_pylist()))) == [
        ("/a/one.flac", "ok", 0),
        ("/a/three.txt", "rejected", 0),
        ("/a/two.mp3", "partial", 0),
    ]


def test_nothing_is_said_of_a_lake_that_is_not_there_yet(tmp_path):
    assert held_rows(str(tmp_path), "f00d", ["recording_id", "take"]).to_pylist() == []


def test_a_column_of_the_path_comes_too(tmp_path, make_shard, day):
    commit_shard(str(tmp_path), make_shard())
    assert held_rows(str(tmp_path), "f00d", ["recording_id", "date"])["date"].to_pylist() == [day.date()]


def test_what_came_back_is_not_absent_until_it_is_gone_again(empty_lake, day):
    assert absent_uris(f"{empty_lake}/none") == set()
    for hour, (event, uris) in enumerate([("deleted", "ab"), ("returned", "a"), ("deleted", "a")]):
        at = day + timedelta(hours=hour)
        rows = presence_rows([(uri, None) for uri in uris], event, noticed_at=at, run_id=f"r{hour}")
        append_rows(empty_lake, "presence", rows)
        assert absent_uris(empty_lake) == [{"a", "b"}, {"b"}, {"a", "b"}][hour]
