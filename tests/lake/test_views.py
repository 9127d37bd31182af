"""Every view on an empty lake, and on three recordings with answers computed by hand."""

import os
import re
import shutil
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dgasr.errors import ConfigError, IntegrityError
from dgasr.lake import views
from dgasr.lake.parts import commit_shard
from dgasr.lake.schema import table_schema
from dgasr.lake.views import connect, view_statements
from dgasr.store import objects

VIEWS = sorted(set(view_statements()) - {"search"})


def ask(lake: str, query: str) -> list[tuple]:
    with connect(lake) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture(scope="module")
def small(small_lake):
    with connect(small_lake) as connection:
        yield lambda query: connection.execute(query).fetchall()


@pytest.mark.parametrize("view", [*VIEWS, "runs", "recording_parts", "segment_parts"])
def test_an_empty_lake_answers_every_view(empty_lake, view):
    rows = ask(empty_lake, f"select * from {view}")
    assert rows == [] or (view == "confidence_histogram" and [row[2:] for row in rows] == [(0, None)] * 10)


def test_an_empty_lake_answers_a_search(empty_lake):
    assert ask(empty_lake, "select * from search('one')") == []


@pytest.mark.parametrize("name", sorted(view_statements()))
def test_a_file_is_named_for_what_it_creates_and_says_its_grain(name):
    text = view_statements()[name]
    assert re.findall(r"create or replace (?:view|macro) (\w+)", text) == [name]
    assert re.match(r"-- .+\n-- grain: .+\n(--  .+\n)*-- sources: .+\n-- units: .+\n(--  .+\n)*-- example: .+\n", text)


def test_a_view_is_loaded_after_its_sources():
    order = list(view_statements())
    assert order.index("segments") < order.index("segments_latest") < order.index("words") < order.index("search")


def test_recordings_have_the_declared_columns(small_lake):
    with connect(small_lake) as connection:
        connection.execute("select * from recordings")
        assert [column[0] for column in connection.description] == table_schema("recordings").names


def test_partition_columns_come_from_the_path(small):
    assert small("select distinct recipe_id, date from segments") == [("f00d", date(2026, 1, 2))]


def test_latest_transcripts_join_text_in_order(small):
    assert small("select uri, status, text, round(confidence, 4), num_flagged, num_words from latest_transcripts") == [
        ("/a/one.flac", "ok", "One two, two forty two", 0.8575, 1, 5),
        ("/a/three.txt", "rejected", "", None, 0, 0),
        ("/a/two.mp3", "partial", "three", 1.0, 0, 1),
    ]


def test_words_carry_times_of_the_recording(small):
    assert small("select word, segment_index, word_index, start_s, end_s from words where uri = '/a/one.flac'") == [
        ("One", 0, 0, 0.0, 2.0),
        ("two,", 0, 1, 2.0, 4.0),
        ("two", 0, 2, 4.0, 6.0),
        ("forty", 2, 0, 8.0, 9.0),
        ("two", 2, 1, 9.0, 10.0),
    ]


def test_search_ranks_the_phrase_first_and_gives_neighbours(small):
    assert small("select uri, start_s, score, text_before, text, text_after from search('Forty two!')") == [
        ("/a/one.flac", 8.0, 2.0, "One two, two", "forty two", ""),
        ("/a/one.flac", 2.0, 0.5, "", "One two, two", "forty two"),
    ]


def test_search_finds_the_parts_of_a_hyphenated_word(empty_lake, make_shard):
    commit_shard(objects, empty_lake, make_shard(pieces=[("speech", 0, 2, "Twenty-one!", 1.0, ())]))
    assert ask(empty_lake, "select score from search('twenty one')") == [(2.0,)]


def test_search_for_nothing_finds_nothing(small):
    assert small("select * from search('')") == []


def test_coverage_accounts_for_every_second(small):
    columns = "uri, declared_s, decoded_s, speech_s, dropped_s, dropped_as, missing_s, speech_share"
    assert small(f"select {columns} from coverage") == [
        ("/a/one.flac", 10.0, 10.0, 8.0, 2.0, "silence 2.00 s", 0.0, 0.8),
        ("/a/three.txt", None, 0.0, 0.0, 0.0, "", 0.0, None),
        ("/a/two.mp3", 5.0, 2.0, 1.5, 0.5, "silence 0.50 s", 3.0, 0.75),
    ]


def test_dropped_intervals_name_their_reason(small):
    assert small("select uri, start_s, end_s, duration_s, reason from dropped_intervals") == [
        ("/a/one.flac", 6.0, 8.0, 2.0, "silence"),
        ("/a/two.mp3", 1.5, 2.0, 0.5, "silence"),
    ]


def test_rejections_list_what_is_not_ok(small):
    assert small("select reason, status, uri, message from rejections") == [
        ("truncated", "partial", "/a/two.mp3", "/a/two.mp3: ends after 2 s of 5 s."),
        ("unknown_format", "rejected", "/a/three.txt", "/a/three.txt: no decoder knows it."),
    ]


def test_rejections_by_reason_count_them(small):
    assert small("select * from rejections_by_reason") == [
        ("truncated", "partial", 1, 1000, "/a/two.mp3"),
        ("unknown_format", "rejected", 1, 1000, "/a/three.txt"),
    ]


def test_throughput_is_audio_over_wall_time(small):
    assert small(
        "select device, num_recordings, num_rejected, audio_h * 3600, rtfx, peak_memory_mb from throughput"
    ) == [("cpu", 3, 1, 12.0, 4.0, 500.0)]


def test_suspicious_segments_show_their_flags(small):
    assert small("select uri, start_s, flags, text from suspicious_segments") == [
        ("/a/one.flac", 8.0, ["repetition"], "forty two")
    ]


def test_the_confidence_histogram_counts_every_word_once(small):
    histogram = {round(row[0], 1): row[2] for row in small("select * from confidence_histogram")}
    assert histogram == {0.0: 0, 0.1: 0, 0.2: 0, 0.3: 0, 0.4: 0, 0.5: 2, 0.6: 0, 0.7: 0, 0.8: 0, 0.9: 4}


def test_the_newest_version_of_an_object_is_the_latest(empty_lake, make_shard):
    commit_shard(objects, empty_lake, make_shard())
    one = make_shard()
    modified_at = one.recordings[0]["modified_at"] + timedelta(days=1)
    commit_shard(
        objects,
        empty_lake,
        make_shard(shard_id="s2", etag="v2", modified_at=modified_at, pieces=[("speech", 0, 1, "new", 1.0, ())]),
    )
    assert ask(empty_lake, "select text from latest_transcripts") == [("new",)]
    assert ask(empty_lake, "select count(*) from recordings") == [(2,)]


def test_a_recording_that_two_plans_put_into_two_shards_is_seen_once(empty_lake, make_shard):
    first = make_shard()
    later = first.recordings[0]["transcribed_at"] + timedelta(seconds=1)
    pieces = [("speech", 0, 10, "late", 1.0, ())]
    commit_shard(objects, empty_lake, make_shard(shard_id="s0", run_id="run2", transcribed_at=later, pieces=pieces))
    commit_shard(objects, empty_lake, first)
    assert ask(empty_lake, "select run_id from recordings") == [("run1",)]
    assert ask(empty_lake, "select text from segments order by segment_index") == [
        ("One two, two",),
        ("",),
        ("forty two",),
    ]


def test_parts_are_plain_parquet_with_comments_and_units(small_lake):
    (path,) = Path(small_lake).glob("segments/recipe_id=f00d/date=2026-01-02/*.parquet")
    schema = pq.read_schema(path)
    assert schema.field("start_s").metadata[b"unit"] == b"s"
    assert schema.metadata[b"dgasr.schema_version"] == b"1"
    assert set(pq.read_table(f"{small_lake}/segments").column_names) == set(table_schema("segments").names)


def test_a_missing_lake_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no lake lies here"):
        connect(str(tmp_path / "nowhere"))


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(ConfigError, match=r"is no lake; it holds photo\.jpg"):
        connect(str(tmp_path))


def test_a_lake_without_commits_shows_nothing(small_lake, tmp_path):
    shutil.copytree(f"{small_lake}/segments", tmp_path / "segments")
    shutil.copytree(f"{small_lake}/recordings", tmp_path / "recordings")
    assert ask(str(tmp_path), "select count(*) from segments") == [(0,)]


@pytest.fixture
def lake_copy(small_lake, tmp_path):
    shutil.copytree(small_lake, tmp_path / "lake")
    return tmp_path / "lake"


def test_a_foreign_parquet_file_beside_the_parts_is_not_read(lake_copy):
    pq.write_table(pa.table({"x": [1]}), next(lake_copy.glob("segments/*/*")) / "foreign.parquet")
    assert ask(str(lake_copy), "select count(*) from segments") == [(5,)]


def test_a_half_written_part_is_named(lake_copy):
    part = next(lake_copy.glob("segments/*/*/*.parquet"))
    os.truncate(part, 100)
    with pytest.raises(IntegrityError, match=re.escape(str(part)) + ": has 100 bytes, and its commit names"):
        connect(str(lake_copy))


def test_a_missing_part_is_named(lake_copy):
    part = next(lake_copy.glob("recordings/*/*/*.parquet"))
    part.unlink()
    with pytest.raises(IntegrityError, match=re.escape(str(part)) + ": is missing"):
        connect(str(lake_copy))


def test_a_newer_schema_version_is_refused(lake_copy):
    commit = next(lake_copy.glob("commits/*/*.json"))
    commit.write_text(commit.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(IntegrityError, match="schema version 2, and this dgasr reads up to 1"):
        connect(str(lake_copy))


def test_a_stranger_among_the_commits_is_named(lake_copy):
    (lake_copy / "commits" / "recipe_id=f00d" / "x.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"x\.json: is no commit of a lake"):
        connect(str(lake_copy))


def test_missing_views_say_how_to_install(empty_lake, monkeypatch, tmp_path):
    monkeypatch.setattr(views, "SQL_FOLDER", tmp_path / "sql")
    with pytest.raises(ConfigError, match="install it from a checkout"):
        connect(empty_lake)


def test_a_lake_on_s3_answers_like_a_folder(s3_lake, three_recordings):
    commit_shard(objects, s3_lake, three_recordings)
    assert ask(s3_lake, "select uri, text from latest_transcripts where text <> ''") == [
        ("/a/one.flac", "One two, two forty two"),
        ("/a/two.mp3", "three"),
    ]


def test_an_empty_prefix_on_s3_is_no_lake(s3_lake):
    with pytest.raises(ConfigError, match="no lake lies here"):
        connect(s3_lake)


def test_a_missing_bucket_is_named(s3_lake):
    with pytest.raises(ConfigError, match="does not exist"):
        connect("s3://no-such-bucket/lake")
