"""The script of `dgasr lake attach`, run by a DuckDB that knows nothing of us."""

import duckdb

from dgasr.lake.attach import attach_script
from dgasr.lake.parts import commit_shard
from dgasr.store import objects


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


def test_an_empty_lake_is_attached_empty(empty_lake):
    with duckdb.connect() as connection:
        connection.execute(attach_script(empty_lake))
        assert connection.execute("from words").fetchall() == []


def test_a_lake_on_s3_says_where_it_is_and_no_secret(s3_endpoint, s3_lake, three_recordings):
    commit_shard(objects, s3_lake, three_recordings)
    script = attach_script(s3_lake, s3_endpoint)
    host = s3_endpoint.removeprefix("http://")
    assert f"provider credential_chain, endpoint '{host}', url_style 'path', use_ssl false" in script
    assert f"'{s3_lake}/segments/recipe_id=f00d/date=2026-01-02/s1.parquet'" in script
    assert "key_id" not in script.lower()
