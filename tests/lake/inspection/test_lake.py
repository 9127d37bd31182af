"""A whole lake is checked: sound ones, merged ones, on S3, none at all."""

import pytest

from dgasr.errors import ConfigError
from dgasr.lake.compaction import CompactionConfig, compact
from dgasr.lake.inspection import check_lake
from dgasr.lake.parts import commit_shard
from dgasr.store import objects
from tests.lake.inspection.finding import kinds, part_of, the_fault


def test_a_sound_lake_has_no_faults_and_says_what_was_looked_at(lake):
    found = check_lake(str(lake), is_deep=True)
    assert found.findings == ()
    assert (found.num_recordings, found.num_segments, found.num_files) == (4, 7, 7)
    assert found.line() == "the lake is sound: 7 files, 4 recordings, 7 segments checked (bytes too)"


def test_a_merged_lake_is_as_sound(lake, make_shard):
    for number in range(2):
        commit_shard(objects, str(lake), make_shard(shard_id=f"m{number}", uri=f"/m/{number}"))
    compact(objects, str(lake), CompactionConfig())
    assert kinds(lake, is_deep=True) == []


def test_an_empty_lake_is_sound(tmp_path):
    assert check_lake(str(tmp_path), is_deep=False).line().startswith("the lake is sound: 0 files")


def test_a_lake_on_s3_is_checked_like_a_folder(s3_lake, three_recordings):
    commit_shard(objects, s3_lake, three_recordings)
    assert kinds(s3_lake, is_deep=True) == []


def test_every_line_says_what_where_and_what_now(lake):
    part_of(lake, "segments").unlink()
    line = the_fault(lake).line()
    assert line.startswith(f"fault part_missing: {lake}/segments/recipe_id=f00d/date=2026-01-02/s1.parquet: is named")
    assert line.endswith("fills it anew.")


def test_where_no_lake_lies_nothing_is_checked(tmp_path):
    with pytest.raises(ConfigError, match="no lake lies here"):
        check_lake(str(tmp_path / "nowhere"), is_deep=False)
