"""Programs that know nothing of us read the same rows: DuckDB, pyarrow, pandas, and whoever knows Delta Lake."""

import importlib.util
import json
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import boto3
import duckdb
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

import dgasr.lake
from dgasr.errors import ConfigError
from dgasr.lake.ledger import commit_shard
from dgasr.lake.location import open_lake
from dgasr.lake.schema import VIEWS
from dgasr.lake.upkeep import compact
from dgasr.lake.views import attach_script
from tests.lake.reading import ask, file_of

FOREIGN_READER = """
import json, os, sys
import duckdb, pyarrow.dataset
from deltalake import DeltaTable

reader, lake, kind, columns = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4].split(",")
table = DeltaTable(f"{lake}/transcripts")
if reader == "duckdb":
    paths = [uri.removeprefix("file://") for uri in table.file_uris()]
    names = ", ".join(f'"{column}"' for column in columns)
    with duckdb.connect() as connection:
        rows = connection.execute(
            f"select {names} from read_parquet($paths, hive_partitioning = true) where row_kind = $kind",
            {"paths": paths, "kind": kind},
        ).fetchall()
elif reader == "pyarrow":
    wanted = pyarrow.dataset.field("row_kind") == kind
    found = table.to_pyarrow_dataset().to_table(columns=columns, filter=wanted)
    rows = [list(row.values()) for row in found.to_pylist()]
else:
    frame = table.to_pandas(columns=[*columns, "row_kind"])
    frame = frame[frame["row_kind"] == kind][columns].astype(object)
    rows = frame.where(frame.notna(), None).values.tolist()
assert not [name for name in sys.modules if name.split(".")[0] == "dgasr"]
print(json.dumps(list(map(list, rows))), flush=True)
os._exit(0)  # threads of deltalake now and then end the interpreter with SIGABRT when it goes down
"""

SIMPLE = {
    "recordings": [
        "recording_id",
        "uri",
        "status",
        "reason",
        "decoded_s",
        "num_words",
        "take",
        "shard_id",
        "recipe_id",
    ],
    "segments": ["recording_id", "segment_index", "start_s", "end_s", "text", "language", "num_steps", "recipe_id"],
}
"""Columns whose values every reader spells the same."""


@pytest.fixture(scope="module")
def merged(tmp_path_factory, make_shard, three_recordings) -> str:
    """Shards, merged; one of them asked for again, one committed since."""
    uri = str(tmp_path_factory.mktemp("merged") / "lake")
    commit_shard(uri, three_recordings)
    commit_shard(uri, make_shard(shard_id="s1", uri="/a/1.flac"))
    compact(uri)
    again = make_shard(shard_id="s2", uri="/a/1.flac", run_id="run2", pieces=[("speech", 0, 10, "redone", 1.0, ())])
    again.recordings[0]["take"] = 1
    commit_shard(uri, again)
    commit_shard(uri, make_shard(shard_id="s3", uri="/a/3.flac", recipe_id="beef"))
    return uri


def spelled(rows) -> list[list[str]]:
    """Order rows, with whole numbers as pandas has them where others are missing."""
    return sorted([str(float(value) if isinstance(value, int) else value) for value in row] for row in rows)


@pytest.mark.parametrize("reader", ["duckdb", "pyarrow", "pandas"])
@pytest.mark.parametrize("view", SIMPLE)
def test_a_reader_without_us_gets_the_rows_of_our_views(merged, tmp_path, view, reader):
    if reader == "pandas":
        pytest.importorskip("pandas")
    (tmp_path / "foreign_reader.py").write_text(FOREIGN_READER)
    arguments = [reader, merged, view.removesuffix("s"), ",".join(SIMPLE[view])]
    command = [sys.executable, "-I", str(tmp_path / "foreign_reader.py"), *arguments]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    names = ", ".join(SIMPLE[view])
    assert spelled(found) == spelled(ask(merged, f"select {names} from {view}"))


@pytest.mark.parametrize("view", VIEWS)
def test_plain_duckdb_reads_every_column_as_our_views_do(merged, view):
    names = ", ".join(f'"{name}"' for name in VIEWS[view].names)
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        paths = dgasr.lake.part_uris(merged, view)
        query = f"select {names} from read_parquet($paths, hive_partitioning = true)"
        rows = connection.execute(query, {"paths": paths}).fetchall()
    assert sorted(map(repr, rows)) == sorted(map(repr, ask(merged, f"select {names} from {view}")))
    assert len(rows) == {"recordings": 5, "segments": 9}[view]


def test_the_list_of_files_has_each_row_once_where_a_glob_counts_twice(merged, tmp_path):
    lake = shutil.copytree(merged, tmp_path / "lake")
    file_of(lake).with_name("other.parquet").write_bytes(file_of(lake).read_bytes())  # nobody committed it
    listed = dgasr.lake.part_uris(str(lake), "recordings")
    assert sum(pq.read_metadata(path).num_rows for path in listed) == 5
    everything = Path(lake).glob("transcripts/**/row_kind=recording/*.parquet")
    assert sum(pq.read_metadata(path).num_rows for path in everything) > 5
    assert len(dgasr.lake.part_uris(str(lake))) == len(dgasr.lake.part_uris(merged))
    with pytest.raises(ConfigError, match=r"words: is no table of a lake\. Name one of recordings, segments"):
        dgasr.lake.part_uris(merged, "words")


def test_another_duckdb_gets_all_tables_and_views(small_lake):
    with duckdb.connect() as connection:
        connection.execute(attach_script(small_lake))
        assert connection.execute("select uri, text from latest_transcripts where text <> ''").fetchall() == [
            ("/a/one.flac", "One two, two forty two"),
            ("/a/two.mp3", "three"),
        ]
        assert connection.execute("select text from search('forty two', max_results := 1)").fetchall() == [
            ("forty two",)
        ]
        assert connection.execute("select num_recordings from throughput").fetchall() == [(3,)]


@pytest.mark.parametrize(
    "folder",
    [
        "env=prod",
        "date=2020-05-05/recipe_id=x/row_kind=recording",
        "a b+c",
        "100% sure",
        "ünï 測試",
        "..a..b",
        "q'u#o?te",
    ],
)
def test_a_lake_lies_below_a_folder_of_any_name(tmp_path, three_recordings, folder):
    lake = str(tmp_path / folder / "lake")
    commit_shard(lake, three_recordings)
    asked = "select recipe_id, \"date\", text from segments where text <> '' order by all"
    expected = [("f00d", date(2026, 1, 2), text) for text in ("One two, two", "forty two", "three")]
    assert ask(lake, asked) == expected
    with duckdb.connect() as connection:
        connection.execute(attach_script(lake))
        assert connection.execute(asked).fetchall() == expected
    dataset = DeltaTable(f"{lake}/transcripts").to_pyarrow_dataset()
    assert dataset.count_rows(filter=pyarrow.dataset.field("row_kind") == "recording") == 3
    files = dgasr.lake.part_uris(lake, "segments")
    texts = pyarrow.dataset.dataset(files, format="parquet").to_table(columns=["text"])["text"].to_pylist()
    assert sorted(filter(None, texts)) == sorted(text for _, _, text in expected)
    if importlib.util.find_spec("pandas"):
        import pandas as pd

        frames = [pd.read_parquet(file, columns=["text"], partitioning=None) for file in files]
        assert sorted(pd.concat(frames)["text"]) == sorted(texts)
    if "recipe_id=" not in folder:  # a reader of Parquet alone takes the first folder of a name
        with duckdb.connect() as connection:
            query = 'select recipe_id, "date", text from read_parquet($paths, hive_partitioning = true)'
            rows = connection.execute(f"{query} where text <> '' order by all", {"paths": files}).fetchall()
        assert rows == expected


@pytest.mark.parametrize("prefix", ["env=prod/a b+c", "date=2020-05-05/100% ünï 測試"])
def test_a_lake_lies_in_a_bucket_with_dots_below_a_prefix_of_any_name(s3_endpoint, three_recordings, prefix):
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket="my.lakes.example")
    lake = f"s3://my.lakes.example/{prefix}"
    commit_shard(lake, three_recordings)
    asked = 'select recipe_id, "date", count(*) from segments group by all'
    assert ask(lake, asked) == [("f00d", date(2026, 1, 2), 5)]
    opened = open_lake(lake)
    table = DeltaTable(opened.table_uri("transcripts"), storage_options=dict(opened.storage_options))
    assert table.to_pyarrow_dataset().count_rows() == 8


def test_an_empty_lake_is_attached_empty(empty_lake):
    with duckdb.connect() as connection:
        connection.execute(attach_script(empty_lake))
        assert connection.execute("from words").fetchall() == []


def test_a_lake_on_s3_says_where_it_is_and_no_secret(s3_endpoint, s3_lake, three_recordings):
    commit_shard(s3_lake, three_recordings)
    script = attach_script(s3_lake, s3_endpoint)
    host = s3_endpoint.removeprefix("http://")
    assert f"provider credential_chain, endpoint '{host}', url_style 'path', use_ssl false" in script
    assert f"'{s3_lake}/transcripts/recipe_id=f00d/date=2026-01-02/row_kind=segment/" in script
    assert "key_id" not in script.lower()
