"""What is no lake, or one that was damaged, is refused in words; what nobody committed is not read."""

import os
import re
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dgasr.errors import ConfigError, IntegrityError
from dgasr.lake.views import connect
from tests.lake.reading import ask


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


def test_an_empty_prefix_on_s3_is_no_lake(s3_lake):
    with pytest.raises(ConfigError, match="no lake lies here"):
        connect(s3_lake)


def test_a_missing_bucket_is_named(s3_lake):
    with pytest.raises(ConfigError, match="does not exist"):
        connect("s3://no-such-bucket/lake")
