"""Upkeep changes how many files there are, and no row; what goes is what nobody can need any more."""

import os
import shutil
import time
from datetime import timedelta
from pathlib import Path

import pytest

from dgasr.errors import ConfigError
from dgasr.lake.check import check_lake
from dgasr.lake.ledger import append_rows, commit_shard, committed_recordings
from dgasr.lake.table import open_table
from dgasr.lake.upkeep import compact, forget_partition, vacuum
from dgasr.lake.views import connect
from tests.lake.reading import ask, file_of, keys_of, rows_of

AT_ONCE = 0.0
PARTITION = "recipe_id=f00d/date=2026-01-02"


def files_of(lake: str) -> set[str]:
    return {path.relative_to(lake).as_posix() for path in Path(lake).rglob("*") if path.is_file()}


def put(lake: str, key: str, days: float = 3.0) -> str:
    """Put a file there as if it had been written days ago."""
    path = Path(lake, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    os.utime(path, (time.time() - days * 24 * 3600,) * 2)
    return key


@pytest.fixture(scope="module")
def written(tmp_path_factory, make_shard, make_run, day):
    """Four shards, three of them of one date, and two runs."""
    uri = str(tmp_path_factory.mktemp("written") / "lake")
    for number in range(4):
        at = day + timedelta(days=number // 3)
        commit_shard(uri, make_shard(shard_id=f"s{number}", uri=f"/a/{number}.flac", modified_at=at))
    for run_id in ("r1", "r2"):
        append_rows(uri, "runs", [make_run(run_id=run_id)])
    return uri


@pytest.fixture
def lake(written, tmp_path):
    """A copy of them, which a test may change."""
    return str(shutil.copytree(written, tmp_path / "lake"))


def test_the_files_of_a_partition_become_one_of_each_kind_and_the_rows_stay(lake, make_shard):
    before, held = rows_of(lake), committed_recordings(lake, "f00d")
    done = compact(lake)
    assert (done.num_merged, done.num_written) == (3 + 3 + 2, 3)
    assert (len(keys_of(lake)), len(keys_of(lake, "runs"))) == (4, 1)
    # Each recording's segments follow each other.
    rows = ask(lake, "select recording_id, segment_index from segments")
    assert [index for _, index in rows] == [0, 1, 2] * 4
    assert all(len({recording_id for recording_id, _ in rows[n : n + 3]}) == 1 for n in range(0, 12, 3))
    assert compact(lake).line() == "no files worth merging"
    # A shard that was merged is held, and what comes since is merged next time.
    assert not commit_shard(lake, make_shard(shard_id="s0", uri="/a/0.flac", run_id="run2")).recordings
    assert (rows_of(lake), committed_recordings(lake, "f00d")) == (before, held)
    commit_shard(lake, make_shard(shard_id="s9", uri="/a/9.flac"))
    before = rows_of(lake)
    assert compact(lake).num_merged == 4
    assert rows_of(lake) == before


def test_a_reader_of_before_goes_on_after_a_compaction(lake):
    with connect(lake) as connection:
        compact(lake)
        assert connection.execute("select sum(len(words)) from segments").fetchall() == [(20,)]


CHANGES = {
    "compact": lambda lake, _: compact(lake),
    "append": lambda lake, make: commit_shard(lake, make(shard_id="s9", uri="/a/9.flac")),
    "replace": lambda lake, make: commit_shard(lake, redo_of(make)),
    "forget": lambda lake, _: forget_partition(lake, PARTITION),
}


def redo_of(make):
    rows = make(shard_id="s8", uri="/a/0.flac", run_id="run2", pieces=[("speech", 0, 10, "redone", 1.0, ())])
    rows.recordings[0]["take"] = 1
    return rows


@pytest.mark.parametrize("second", CHANGES)
@pytest.mark.parametrize("first", CHANGES)
def test_what_was_overtaken_begins_again_and_no_row_is_lost_or_doubled(lake, make_shard, monkeypatch, first, second):
    """The second change looks at the lake, the first one is made, and only then the second one is committed."""
    opened = []

    def overtaken(*arguments):
        table = open_table(*arguments)
        if arguments[1] == "transcripts" and not opened:
            opened.append(table)
            CHANGES[first](lake, make_shard)
        return table

    for module in ("ledger", "upkeep"):
        monkeypatch.setattr(f"dgasr.lake.{module}.open_table", overtaken)
    CHANGES[second](lake, make_shard)
    monkeypatch.undo()
    order = [first, second]
    expected = {f"/a/{number}.flac": "run1" for number in range(4)}
    for change in order:
        expected |= {"append": {"/a/9.flac": "run1"}, "replace": {"/a/0.flac": "run2"}}.get(change, {})
        if change == "forget":
            expected = {"/a/3.flac": "run1"}
    assert dict(ask(lake, "select uri, run_id from recordings")) == expected
    assert ask(lake, "select count(*) from recordings") == [(len(expected),)]
    assert check_lake(lake, is_deep=True).num_faults == 0


def test_merged_files_go_after_the_grace_period_and_their_rows_stay(lake):
    before = rows_of(lake)
    compact(lake)
    assert vacuum(lake).unused == ()
    files = files_of(lake)
    assert len(vacuum(lake, AT_ONCE, is_dry_run=True).unused) == 8
    assert files_of(lake) == files
    assert len(vacuum(lake, AT_ONCE).unused) == 8
    assert len([key for key in files_of(lake) if key.endswith(".parquet") and "_delta_log" not in key]) == 5
    assert rows_of(lake) == before


def test_what_killed_writers_and_runs_left_goes_after_the_grace_period_and_what_somebody_works_on_stays(lake):
    left = put(lake, f"transcripts/{PARTITION}/row_kind=segment/part-00000-killed.parquet")
    new = put(lake, f"transcripts/{PARTITION}/row_kind=segment/part-00000-writing.parquet", days=0)
    old = [put(lake, f"staging/f00d/s7/{name}") for name in ("00000.arrow", "outcomes.json")]
    put(lake, "staging/f00d/s8/00000.arrow")
    staged = put(lake, "staging/f00d/s8/00001.arrow", days=0)
    done = vacuum(lake)
    assert (done.unused, done.staged) == ((left,), tuple(reversed(old)))  # a part loses its mark of wholeness first
    assert new in files_of(lake)
    assert {key for key in files_of(lake) if "staging" in key} == {"staging/f00d/s8/00000.arrow", staged}
    with pytest.raises(ConfigError, match="0 s or more"):
        vacuum(lake, -1.0)


@pytest.mark.parametrize("row_kind", ["recording", "segment"])
def test_a_damaged_partition_is_taken_out_and_filled_anew(lake, make_shard, row_kind):
    compact(lake)
    vacuum(lake, AT_ONCE)
    file_of(lake, row_kind, date="2026-01-02").unlink()
    assert forget_partition(lake, PARTITION) == 2
    assert len(committed_recordings(lake, "f00d")) == 1
    assert check_lake(lake, is_deep=True).num_faults == 0
    assert commit_shard(lake, make_shard(shard_id="s0", uri="/a/0.flac", run_id="run2")).recordings
    assert forget_partition(lake, "recipe_id=f00d") == 4
    assert committed_recordings(lake, "f00d") == set()


def test_what_is_no_partition_is_refused(lake):
    for partition in ("f00d", f"transcripts/{PARTITION}", "recipe_id=f00d/date=january", "recipe_id=f' or 1=1"):
        with pytest.raises(ConfigError, match="is no partition"):
            forget_partition(lake, partition)
