"""Merging parts changes how many files there are, and no row."""

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dgasr.errors import ConfigError
from dgasr.lake.commits import claim_key, commit_key
from dgasr.lake.compaction import CompactionConfig, compact
from dgasr.lake.ledger import committed_recordings
from dgasr.lake.location import open_lake
from dgasr.lake.manifests import Manifest, publish_manifest, read_manifest
from dgasr.lake.parts import commit_shard, write_run
from dgasr.lake.schema import TABLES
from dgasr.lake.snapshot import snapshot
from dgasr.store import objects
from tests.lake.reading import keys_of, rows_of

FIXTURE = Path(__file__).parent / "fixtures" / "lake-2026-11-21"


@pytest.fixture
def lake(tmp_path, make_shard, day):
    """Four shards, three of them of one date, and two runs."""
    uri = str(tmp_path / "lake")
    for number in range(4):
        at = day + timedelta(days=number // 3)
        commit_shard(objects, uri, make_shard(shard_id=f"s{number}", uri=f"/a/{number}.flac", modified_at=at))
    (run,) = pq.read_table(FIXTURE / "runs").drop(["date"]).to_pylist()
    for run_id in ("r1", "r2"):
        write_run(objects, uri, dict.fromkeys(TABLES["runs"].names) | run | {"run_id": run_id})
    return uri


def test_the_parts_of_a_partition_become_one_and_the_rows_stay(lake):
    before = rows_of(lake)
    done = compact(objects, lake, CompactionConfig())
    assert (done.num_merged, done.num_written, done.num_covered) == (3 + 3 + 2, 3, 4)
    assert [len(keys_of(lake, table)) for table in ("recordings", "segments", "runs")] == [2, 2, 1]
    assert rows_of(lake) == before


def test_nothing_is_done_twice(lake):
    compact(objects, lake, CompactionConfig())
    number = read_manifest(open_lake(lake)).number
    again = compact(objects, lake, CompactionConfig())
    assert (again.num_merged, again.num_covered) == (0, 0)
    assert read_manifest(open_lake(lake)).number == number


def test_the_ledger_holds_what_it_held(lake):
    before = committed_recordings(lake, "f00d")
    compact(objects, lake, CompactionConfig())
    assert committed_recordings(lake, "f00d") == before


def test_nothing_is_removed(lake):
    before = {path for path in Path(lake).rglob("*") if path.is_file()}
    compact(objects, lake, CompactionConfig())
    assert before < {path for path in Path(lake).rglob("*") if path.is_file()}


def test_a_shard_that_was_merged_is_still_committed(lake, make_shard):
    compact(objects, lake, CompactionConfig())
    before = rows_of(lake)
    late = commit_shard(objects, lake, make_shard(shard_id="s0", uri="/a/0.flac", run_id="run2"))
    assert (late.is_mine, late.commit.run_id) == (False, "run1")
    assert rows_of(lake) == before


def test_a_writer_who_stalled_since_before_the_commit_doubles_nothing(lake, make_shard):
    """It writes the parts again after they were merged and removed, and finds the commit taken."""
    before = rows_of(lake)
    compact(objects, lake, CompactionConfig())
    for part in Path(lake).glob("*/*/*/s0.parquet"):
        data = part.read_bytes()
        part.unlink()
        part.write_bytes(data)
    assert rows_of(lake) == before


def test_what_was_committed_since_is_merged_next_time(lake, make_shard):
    compact(objects, lake, CompactionConfig())
    commit_shard(objects, lake, make_shard(shard_id="s9", uri="/a/9.flac"))
    assert len(keys_of(lake, "recordings")) == 3
    before = rows_of(lake)
    assert compact(objects, lake, CompactionConfig()).num_merged == 4  # the merged part and the new one, of two tables
    assert rows_of(lake) == before


def test_a_part_is_closed_when_it_is_large_enough(lake, make_shard):
    for number in range(4, 8):
        commit_shard(objects, lake, make_shard(shard_id=f"s{number}", uri=f"/a/{number}.flac"))
    size_bytes = max(part.size_bytes for part in snapshot(open_lake(lake)).parts["segments"])
    compact(objects, lake, CompactionConfig(target_bytes=2 * size_bytes + 1))
    num_rows = [part.num_rows for part in snapshot(open_lake(lake)).parts["segments"]]
    assert sorted(num_rows) == [3, 3, 9, 9]  # one of another date, one left over, and twice three in one


def test_small_batches_lead_to_the_same_lake(lake):
    before = rows_of(lake)
    done = compact(objects, lake, CompactionConfig(target_bytes=2**20, batch_bytes=2**20))
    assert done.num_written == 3
    assert rows_of(lake) == before
    one_by_one = [(part.key, part.num_rows) for part in snapshot(open_lake(lake)).parts["segments"]]
    assert [num_rows for _, num_rows in sorted(one_by_one)] == [9, 3]


def test_a_compaction_that_came_second_begins_again(lake, monkeypatch):
    before = rows_of(lake)
    intruder = iter([lambda: publish_manifest(objects, lake, Manifest(number=1))])

    class Raced:
        read_bytes, delete = staticmethod(objects.read_bytes), staticmethod(objects.delete)

        def write_if_absent(self, uri, data):
            if "/manifests/" in uri:
                next(intruder, lambda: None)()
            return objects.write_if_absent(uri, data)

    done = compact(Raced(), lake, CompactionConfig())
    assert (done.num_conflicts, done.num_written) == (1, 3)
    assert rows_of(lake) == before


def test_a_claim_that_a_killed_writer_left_is_published(lake, make_shard, tmp_path):
    class Dying:
        read_bytes, delete = staticmethod(objects.read_bytes), staticmethod(objects.delete)

        def write_if_absent(self, uri, data):
            if "/claims/" not in uri:
                raise KeyboardInterrupt
            return objects.write_if_absent(uri, data)

    with pytest.raises(KeyboardInterrupt):
        commit_shard(Dying(), lake, make_shard(shard_id="s8", uri="/a/8.flac"))
    assert compact(objects, lake, CompactionConfig()).num_finished == 1
    assert len(committed_recordings(lake, "f00d")) == 5
    assert not Path(lake, claim_key("f00d", "s8")).exists()


def test_a_damaged_part_is_left_alone_and_named(lake):
    part = next(Path(lake).glob("segments/*/date=2026-01-02/s1.parquet"))
    part.write_bytes(part.read_bytes()[::-1])
    done = compact(objects, lake, CompactionConfig())
    (sentence,) = done.damaged
    assert f"{part}: has other bytes than were committed" in sentence
    assert part.relative_to(lake).as_posix() in keys_of(lake, "segments")
    assert len(keys_of(lake, "segments")) == 3  # it, the other two merged, and the one of another date


def test_columns_that_this_version_would_lose_stay_where_they_are(lake):
    path = next(Path(lake).glob("runs/*/r1.parquet"))
    pq.write_table(pq.ParquetFile(path).read().append_column("mood", pa.array(["good"])), path)
    (sentence,) = compact(objects, lake, CompactionConfig()).damaged
    assert "columns ['mood'], which a newer dgasr wrote" in sentence


def test_an_old_lake_gets_the_columns_that_came_later(tmp_path):
    shutil.copytree(FIXTURE, tmp_path / "lake")
    lake = str(tmp_path / "lake")
    commit = snapshot(open_lake(lake)).commits[0]
    second = tmp_path / "lake" / "runs" / "date=2026-01-02" / "run2.parquet"
    shutil.copy(tmp_path / "lake" / "runs" / "date=2026-01-02" / "run1.parquet", second)
    before = rows_of(lake)
    compact(objects, lake, CompactionConfig())
    assert rows_of(lake) == before
    assert pq.read_schema(tmp_path / "lake" / keys_of(lake, "runs")[0]).names == TABLES["runs"].names
    assert commit_key(commit.recipe_id, commit.shard_id) in read_manifest(open_lake(lake)).covers


def test_rows_of_a_recipe_that_is_being_removed_stay_out_of_sight(lake, make_shard):
    for number in range(2):
        commit_shard(objects, lake, make_shard(shard_id=f"b{number}", recipe_id="beef", uri=f"/a/{number}.flac"))
    compact(objects, lake, CompactionConfig())
    manifest = read_manifest(open_lake(lake))
    publish_manifest(objects, lake, manifest.next(manifest.parts, manifest.covers, ["beef"]))
    commit_shard(objects, lake, make_shard(shard_id="s9", uri="/a/9.flac"))
    compact(objects, lake, CompactionConfig())
    assert all("recipe_id=f00d" in key for key in keys_of(lake, "recordings"))
    assert any("recipe_id=beef" in part.key for part in read_manifest(open_lake(lake)).parts)


def test_a_merged_part_is_sorted_and_says_so_and_has_comments(lake):
    compact(objects, lake, CompactionConfig())
    (path,) = Path(lake).glob("segments/*/date=2026-01-02/merged.*.parquet")
    file = pq.ParquetFile(path)
    ids = file.read(columns=["recording_id", "segment_index"]).to_pylist()
    assert ids == sorted(ids, key=lambda row: (row["recording_id"], row["segment_index"]))
    assert [column.column_index for column in file.metadata.row_group(0).sorting_columns] == [0, 2, 1]
    assert file.metadata.row_group(0).column(0).is_stats_set
    assert file.schema_arrow.field("start_s").metadata[b"unit"] == b"s"
    assert file.schema_arrow.metadata[b"dgasr.schema_version"] == b"1"


def test_a_lake_on_s3_is_compacted_like_a_folder(s3_lake, make_shard):
    for number in range(3):
        commit_shard(objects, s3_lake, make_shard(shard_id=f"s{number}", uri=f"/a/{number}.flac"))
    before = rows_of(s3_lake)
    assert compact(objects, s3_lake, CompactionConfig()).num_written == 2
    assert rows_of(s3_lake) == before
    assert [len(keys_of(s3_lake, table)) for table in ("recordings", "segments")] == [1, 1]


def test_sizes_that_merge_nothing_are_refused():
    with pytest.raises(ConfigError, match="must be positive and at most"):
        replace(CompactionConfig(), target_bytes=2**40)


def test_where_no_lake_lies_nothing_is_compacted(tmp_path):
    with pytest.raises(ConfigError, match="no lake lies here"):
        compact(objects, str(tmp_path / "nowhere"), CompactionConfig())
