"""What is in the lake need not be done again."""

import json
import multiprocessing
import os
import signal
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from deltalake.exceptions import CommitFailedError

from dgasr.errors import ConfigError, IntegrityError, TransientError
from dgasr.lake import ledger, table
from dgasr.lake.check import check_lake
from dgasr.lake.ledger import (
    absent_uris,
    append_rows,
    commit_shard,
    committed_recordings,
    committed_shards,
    recording_rows,
)
from dgasr.lake.location import open_lake
from dgasr.lake.rows import presence_rows
from dgasr.lake.table import open_table
from dgasr.lake.upkeep import compact, vacuum
from dgasr.lake.views import part_uris
from dgasr.records import Recording, Shard
from tests.lake import fire
from tests.lake.reading import ask, file_of, keys_of, rows_of


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


pytestmark = pytest.mark.xdist_group("stores")  # Ceph's ports are the same for all: one at a time, and started once


@pytest.fixture
def run_writers(make_shard):
    """Function that lets processes commit shards at the same moment, one a run; their exit codes.

    A run is its name, the moment at which it is killed (see `fire.kill_when`; never, where empty), and its take.
    """
    rows = make_shard()
    template = json.loads(json.dumps({"recordings": rows.recordings, "segments": rows.segments}, default=str))
    context = multiprocessing.get_context("forkserver")  # which imports once for all of them
    context.set_forkserver_preload(["tests.lake.fire"])

    def run(lake: str, shard_ids: list[str], *runs: tuple[str, str, int]) -> list[int | None]:
        environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        start = context.Barrier(len(runs))
        processes = [
            context.Process(target=fire.race, args=(environment, lake, template, shard_ids, one, start)) for one in runs
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
            assert process.exitcode in (0, -signal.SIGKILL)
        return [process.exitcode for process in processes]

    return run


def owners(lake: str) -> list[tuple]:
    """Return for every visible shard whose rows it shows: (shard, run in recordings, run in segments, segments)."""
    query = """select r.shard_id, r.run_id, s.language, count(*) from recordings r
        join segments s using (recipe_id, recording_id) group by all order by all"""
    return ask(lake, query)


def redone(rows, take: int, **changes):
    """The same recording, asked for again."""
    recordings = [row | {"take": take} | changes for row in rows.recordings]
    return replace(rows, recordings=recordings, run_id=changes.get("run_id", rows.run_id))


def test_a_shard_is_visible_in_one_commit_of_two_files_and_committed_once(tmp_path, make_shard):
    lake, rows = str(tmp_path), make_shard()
    assert [commit_shard(lake, rows) for _ in range(2)] == [rows, rows]  # an answer that was lost is given again
    late = commit_shard(lake, make_shard(run_id="run2"))
    assert (late.recordings, late.segments) == ([], [])
    assert owners(lake) == [("s1", "run1", "en", 3)]
    assert open_table(open_lake(lake), "transcripts").version() == 1  # 0 made the table
    assert len(keys_of(lake)) == 2


def test_rows_arrive_in_order_whatever_order_they_were_decoded_in(tmp_path, make_shard):
    rows = make_shard()
    commit_shard(str(tmp_path / "a"), rows)
    commit_shard(str(tmp_path / "b"), replace(rows, segments=rows.segments[::-1]))
    for lake in ("a", "b"):
        assert ask(str(tmp_path / lake), "select segment_index from segments") == [(0,), (1,), (2,)]


def both(first, second):
    """Two shards' rows as one shard's, the first one's."""
    recordings, segments = [*first.recordings, *second.recordings], [*first.segments, *second.segments]
    return replace(first, recordings=recordings, segments=segments)


def test_of_a_shard_that_overlaps_another_only_the_rest_is_written(tmp_path, make_shard):
    lake = str(tmp_path)
    commit_shard(lake, make_shard())
    whose = {"shard_id": "s2", "run_id": "run2"}
    written = commit_shard(lake, both(make_shard(uri="/a/two.flac", **whose), make_shard(**whose)))
    assert ([row["uri"] for row in written.recordings], len(written.segments)) == (["/a/two.flac"], 3)
    assert ask(lake, "select uri, run_id from recordings order by uri") == [
        ("/a/one.flac", "run1"),
        ("/a/two.flac", "run2"),
    ]


def test_a_shard_is_committed_once_all_of_its_recordings_are_held_at_its_take(tmp_path, make_shard, day):
    lake, found = str(tmp_path), []
    one, two = (Recording(uri=f"/a/{n}.flac", etag="v1", size_bytes=1000, modified_at=day) for n in ("one", "two"))
    shards = [Shard(shard_id="a", recordings=(one,)), Shard(shard_id="b", recordings=(one, two))]
    shards.append(Shard(shard_id="c", recordings=(one,), take=1))
    for rows in (None, make_shard(), make_shard(uri="/a/two.flac"), redone(make_shard(), 1)):
        if rows is not None:
            commit_shard(lake, rows)
        found.append("".join(sorted(committed_shards(lake, "f00d", shards))))
    assert found == ["", "a", "ab", "abc"]
    assert committed_shards(lake, "beef", shards) == set()


def test_each_recording_lies_under_its_own_date(tmp_path, make_shard, day):
    commit_shard(str(tmp_path), both(make_shard(), make_shard(uri="/a/two.flac", modified_at=day + timedelta(days=1))))
    assert ask(str(tmp_path), 'select distinct uri, "date"::varchar from recordings order by all') == [
        ("/a/one.flac", "2026-01-02"),
        ("/a/two.flac", "2026-01-03"),
    ]


def test_a_forced_redo_leaves_no_row_of_what_it_replaces(tmp_path, make_shard):
    lake = str(tmp_path)
    commit_shard(lake, make_shard())
    commit_shard(lake, make_shard(uri="/a/two.flac", shard_id="s2"))
    compact(lake)
    again = make_shard(shard_id="s3", run_id="run2", pieces=[("speech", 0, 10, "redone", 1.0, ())])
    assert commit_shard(lake, redone(again, 1)).recordings
    assert ask(lake, "select uri, run_id, take from recordings order by uri") == [
        ("/a/one.flac", "run2", 1),
        ("/a/two.flac", "run1", 0),
    ]
    assert ask(lake, "select text from segments join recordings using (recording_id) where uri like '%one%'") == [
        ("redone",)
    ]
    assert commit_shard(lake, redone(make_shard(run_id="late"), 0)).recordings == []


def test_a_redo_of_what_is_listed_with_another_date_moves_it(tmp_path, make_shard, day):
    """Identity is recording and recipe: the same bytes, copied to another day, are one recording, not two."""
    lake = str(tmp_path)
    commit_shard(lake, make_shard())
    moved = make_shard(shard_id="s2", run_id="run2", modified_at=day + timedelta(days=3))
    assert not commit_shard(lake, moved).recordings  # it is held
    commit_shard(lake, redone(moved, 1))
    assert ask(lake, 'select run_id, "date"::varchar from recordings') == [("run2", "2026-01-05")]
    assert ask(lake, 'select count(*), min("date")::varchar from segments') == [(3, "2026-01-05")]


@pytest.mark.parametrize("second_take", [0, 1])
@pytest.mark.parametrize("first_take", [0, 1])
def test_delta_lake_reports_that_two_writers_looked_at_the_same_version(tmp_path, make_shard, first_take, second_take):
    """Whatever both want to do: a recording that one adds the other cannot add, nor replace what it did not see."""
    lake = open_lake(str(tmp_path))
    commit_shard(lake.uri, make_shard(uri="/a/zero.flac"))
    first, second = (open_table(lake, "transcripts") for _ in range(2))
    data = ledger.shard_table(make_shard())
    fresh = [make_shard().recordings[0]["recording_id"]]
    ledger._write(first, data, "f00d", fresh, is_replacing=bool(first_take))
    with pytest.raises(CommitFailedError):
        ledger._write(second, data, "f00d", fresh, is_replacing=bool(second_take))
    assert ask(lake.uri, "select count(*) from recordings where uri = '/a/one.flac'") == [(1,)]


def test_a_commit_whose_answer_got_lost_is_found_and_not_made_again(tmp_path, make_shard, monkeypatch):
    lake, write = str(tmp_path / "lake"), ledger._write

    def lost(*arguments, **options):
        write(*arguments, **options)
        raise OSError("Generic S3 error: error sending request")

    monkeypatch.setattr(ledger, "_write", lost)
    rows = make_shard()
    assert commit_shard(lake, rows) == rows
    assert ask(lake, "select count(*) from recordings") == [(1,)]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("Generic S3 error: error sending request"), "did not answer"),
        (CommitFailedError("somebody else was faster"), "others commit all the time"),
    ],
)
def test_a_store_that_fails_or_others_that_are_faster_every_time_may_not_be_next_time(
    tmp_path, make_shard, monkeypatch, error, message
):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(ledger, "_write", fail)
    monkeypatch.setattr(ledger, "LONGEST_PAUSE_S", 0.0)
    with pytest.raises(TransientError, match=message):
        commit_shard(str(tmp_path / "lake"), make_shard())


def test_what_cannot_be_committed_is_refused_by_who_can_cure_it(tmp_path, s3_endpoint, make_shard):
    lake, rows = str(tmp_path), make_shard()
    rows.segments[0]["num_steps"] = "four"
    with pytest.raises(IntegrityError, match="does not fit its column"):
        commit_shard(lake, rows)
    with pytest.raises(ConfigError, match=r"shard_id '\.\./x' cannot stand in a key"):
        commit_shard(lake, make_shard(shard_id="../x"))
    assert not list(tmp_path.iterdir())
    (tmp_path / "transcripts").write_text("a file where a folder must be")
    with pytest.raises(ConfigError, match="the lake cannot be written"):
        commit_shard(lake, make_shard())
    with pytest.raises(ConfigError, match="NoSuchBucket"):
        commit_shard("s3://no-such-bucket/lake", make_shard())


@pytest.mark.parametrize("name", ["a b", "ü'x", "x=y"])
def test_a_lake_may_have_any_name_but_one_that_looks_encoded(tmp_path, make_shard, name):
    commit_shard(str(tmp_path / name), make_shard())
    assert owners(str(tmp_path / name)) == [("s1", "run1", "en", 3)]
    with pytest.raises(ConfigError, match="takes the '%'"):
        commit_shard(str(tmp_path / "a%20b"), make_shard())


def test_columns_that_come_later_are_added_to_an_older_table(tmp_path, make_shard, monkeypatch):
    schema = table.table_schema

    def older(name):
        found = schema(name)
        return found.remove(found.get_field_index("read_s")) if name == "transcripts" else found

    lake = open_lake(str(tmp_path))
    monkeypatch.setattr(table, "table_schema", older)
    table.create_table(lake, "transcripts")
    monkeypatch.undo()
    commit_shard(lake.uri, make_shard())
    commit_shard(lake.uri, redone(make_shard(), 1, read_s=2.0))
    assert ask(lake.uri, "select read_s from recordings") == [(2.0,)]


@pytest.mark.parametrize("take", [0, 1])
def test_two_processes_that_race_commit_each_shard_once_in_any_store(make_place, run_writers, take):
    lake = make_place("race")
    shard_ids = [f"{number:02d}" for number in range(3 if "://" in lake else 12)]
    if take:
        run_writers(lake, shard_ids, ("run0", "", 0))
    assert run_writers(lake, shard_ids, ("run1", "", take), ("run2", "", take)) == [0, 0]
    found = owners(lake)
    assert [(shard, count) for shard, _, _, count in found] == [(shard, 3) for shard in shard_ids]
    assert all(run == language != "run0" or not take for _, run, language, _ in found)
    assert Counter(row[0] for row in ask(lake, "select take from recordings")) == {take: len(shard_ids)}


@pytest.mark.slow
@pytest.mark.parametrize("when", ["log", "1 parquet", "2 parquet", "1 log", *(f"{15 * n} ms" for n in range(8))])
def test_a_writer_killed_anywhere_leaves_the_shard_whole_or_absent(tmp_path, run_writers, when):
    lake = str(tmp_path / "lake")
    Path(lake).mkdir()
    run_writers(lake, ["s1"], ("run1", when, 0))
    before = owners(lake)
    assert before in ([], [("s1", "run1", "run1", 3)])
    run_writers(lake, ["s1"], ("run2", "", 0))
    assert owners(lake) == (before or [("s1", "run2", "run2", 3)])


def test_a_lake_is_committed_to_compacted_cleaned_checked_and_read_alike_in_any_store(make_place, make_shard):
    lake = make_place("lake")
    for number in range(3):
        commit_shard(lake, make_shard(shard_id=f"s{number}", uri=f"/a/{number}.flac"))
    before = rows_of(lake)
    assert compact(lake).num_written == 2
    assert len(vacuum(lake, grace_s=0.0).unused) == 6
    assert rows_of(lake) == before
    assert len(keys_of(lake)) == 2
    assert check_lake(lake, is_deep=True).findings[1:] == ()  # a note: nobody wrote a row of the run
    assert ask(lake, "select count(*), min(text) from latest_transcripts") == [(3, "One two, two forty two")]
    (uri,) = part_uris(lake)
    assert uri.startswith(f"{lake}/transcripts/recipe_id=f00d/date=2026-01-02/row_kind=segment/")
