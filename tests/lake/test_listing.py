"""The files that any reader of Parquet is given hold every row once, at any time."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

import dgasr.lake
from dgasr.errors import ConfigError
from dgasr.lake.compaction import CompactionConfig, compact
from dgasr.lake.parts import commit_shard
from dgasr.store import objects


@pytest.fixture
def merged(tmp_path: Path, make_shard) -> str:
    """Two shards, merged, and a third one committed since."""
    uri = str(tmp_path / "lake")
    for number in range(2):
        commit_shard(objects, uri, make_shard(shard_id=f"s{number}", uri=f"/a/{number}.flac"))
    compact(objects, uri, CompactionConfig())
    commit_shard(objects, uri, make_shard(shard_id="s2", uri="/a/2.flac"))
    return uri


def test_a_glob_over_a_compacted_lake_counts_twice_and_the_list_does_not(merged):
    assert pq.read_table(f"{merged}/recordings").num_rows == 2 + 2 + 1
    rows = pq.read_table(dgasr.lake.part_uris(merged, "recordings"))
    assert sorted(rows["uri"].to_pylist()) == ["/a/0.flac", "/a/1.flac", "/a/2.flac"]
    assert set(rows["recipe_id"].to_pylist()) == {"f00d"}


def test_what_nobody_committed_is_not_in_the_list(merged):
    before = dgasr.lake.part_uris(merged)
    folder = Path(before[0]).parent
    (folder / "s9.parquet").write_bytes(Path(before[0]).read_bytes())
    assert dgasr.lake.part_uris(merged) == before


def test_a_table_that_is_none_is_named(merged):
    with pytest.raises(ConfigError, match=r"words: is no table of a lake\. Name one of recordings, segments"):
        dgasr.lake.part_uris(merged, "words")


def test_the_files_on_s3_are_named_by_their_uris(s3_lake, three_recordings):
    commit_shard(objects, s3_lake, three_recordings)
    (uri,) = dgasr.lake.part_uris(s3_lake)
    assert uri.startswith(f"{s3_lake}/segments/recipe_id=f00d/date=2026-01-02/")
