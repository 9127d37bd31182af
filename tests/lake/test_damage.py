"""What is no lake, or one that was damaged, is refused in words; what nobody committed is not read."""

import io
import os
import re
import shutil

import pytest

from dgasr.errors import ConfigError, IntegrityError
from dgasr.lake.ledger import commit_shard
from dgasr.lake.query import run_sql
from dgasr.lake.views import connect
from tests.lake.reading import ask, file_of


def test_what_is_no_lake_is_refused(tmp_path, s3_lake):
    for lake, message in (
        (f"{tmp_path}/nowhere", "no lake lies here"),
        (s3_lake, "no lake lies here"),
        ("s3://no-such-bucket/lake", "does not exist"),
    ):
        with pytest.raises(ConfigError, match=message):
            connect(lake)
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(ConfigError, match=r"is no lake; it holds photo\.jpg"):
        connect(str(tmp_path))


def test_files_without_a_log_show_nothing(small_lake, tmp_path):
    shutil.copytree(f"{small_lake}/transcripts", tmp_path / "transcripts", ignore=shutil.ignore_patterns("_delta_log"))
    assert ask(str(tmp_path), "select count(*) from segments") == [(0,)]


@pytest.fixture
def lake_copy(small_lake, tmp_path):
    shutil.copytree(small_lake, tmp_path / "lake")
    return tmp_path / "lake"


def answer(lake, query):
    run_sql(query, str(lake), "csv", io.StringIO())


def test_a_truncated_and_a_missing_file_are_named(lake_copy):
    os.truncate(file_of(lake_copy), 100)
    with pytest.raises(IntegrityError, match=re.escape(str(file_of(lake_copy)))):
        answer(lake_copy, "select sum(len(words)) from segments")
    path = file_of(lake_copy, "recording")
    path.unlink()
    with pytest.raises(IntegrityError, match=f"a file is missing .*{re.escape(path.name)}"):
        answer(lake_copy, "select uri from recordings")


@pytest.mark.parametrize("damage", ['{"add": ', '{"add": {"path": 3}}', None], ids=["cut off", "no path", "a gap"])
def test_a_damaged_log_is_refused(lake_copy, make_shard, damage):
    commit_shard(str(lake_copy), make_shard(shard_id="s2", uri="/a/four.flac"))
    entry = lake_copy / "transcripts" / "_delta_log" / "00000000000000000001.json"
    entry.unlink() if damage is None else entry.write_text(damage)
    with pytest.raises(IntegrityError, match="transcripts: its log cannot be read"):
        connect(str(lake_copy))
