"""Questions to a lake on S3 fetch what they need and no more, counted at a real HTTP endpoint."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import boto3
import duckdb
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication

from benchmarks.archive import OTHER_RECIPE_ID, ArchiveConfig, write_archive
from dgasr.lake.location import open_existing_lake
from dgasr.lake.views import connect, files_of_tables

CONFIG = ArchiveConfig(num_days=4, shards_per_day=1, recordings_per_shard=8, segments_per_recording=60, num_types=5_000)


@dataclass
class Traffic:
    """What was fetched of the parts."""

    num_openings: int = 0
    """HEAD requests."""
    paths: list[str] = field(default_factory=list)
    """Of each GET request, in order."""
    num_bytes: int = 0

    @property
    def dates(self) -> set[str]:
        """Partitions of segments that anything was fetched of."""
        return {path.split("/date=")[1][:10] for path in self.paths if "row_kind=segment" in path}


@pytest.fixture(scope="module")
def lake(s3_endpoint: str) -> str:
    boto3.client("s3").create_bucket(Bucket="pushdown")
    write_archive("s3://pushdown/lake", CONFIG)
    return "s3://pushdown/lake"


@pytest.fixture
def traffic(monkeypatch: pytest.MonkeyPatch) -> Traffic:
    """What is fetched of parts."""
    traffic = Traffic()
    handle = DomainDispatcherApplication.__call__

    def counting(application, environ, start_response):
        def start(status, headers, *others):
            if environ["REQUEST_METHOD"] == "GET" and environ["PATH_INFO"].endswith(".parquet"):
                traffic.paths.append(environ["PATH_INFO"])
                traffic.num_bytes += int(dict(headers).get("Content-Length", 0))
            traffic.num_openings += environ["REQUEST_METHOD"] == "HEAD" and environ["PATH_INFO"].endswith(".parquet")
            return start_response(status, headers, *others)

        return handle(application, environ, start)

    monkeypatch.setattr(DomainDispatcherApplication, "__call__", counting)
    return traffic


@pytest.fixture
def fetched(lake: str, traffic: Traffic) -> Iterator[Callable[[str], Traffic]]:
    """Function that asks a question of a lake just opened, and returns what was fetched of parts for it."""
    with connect(lake) as connection:
        yield lambda question: _ask(connection, question, traffic)


def _ask(connection: duckdb.DuckDBPyConnection, question: str, traffic: Traffic) -> Traffic:
    traffic.paths.clear()
    traffic.num_bytes = traffic.num_openings = 0
    connection.execute(question).fetchall()
    return traffic


@pytest.fixture(scope="module")
def segment_bytes(lake: str) -> int:
    """Length of all files of segments."""
    files = files_of_tables(open_existing_lake(lake))["transcripts"]
    return sum(file.size_bytes for file in files if file.partition["row_kind"] == "segment")


def test_a_question_about_a_day_fetches_nothing_of_other_days(fetched, segment_bytes):
    traffic = fetched("select sum(len(words)) from segments where \"date\" = '2026-01-03'")
    assert traffic.dates == {"2026-01-03"}
    assert traffic.num_bytes < segment_bytes / 3


def test_a_question_about_a_recipe_fetches_nothing_of_others(fetched):
    traffic = fetched(f"select sum(len(words)) from segments where recipe_id = '{OTHER_RECIPE_ID}'")
    assert traffic.paths
    assert all(f"recipe_id={OTHER_RECIPE_ID}" in path for path in traffic.paths)


def test_a_question_about_one_column_fetches_no_words(fetched, segment_bytes):
    traffic = fetched("select sum(confidence) from segments")
    assert traffic.num_bytes < segment_bytes / 5


def test_counting_costs_a_request_a_part_and_then_nothing(fetched):
    assert len(fetched("select count(*) from segments").paths) <= 2 * 5
    assert fetched("select count(*) from segments").paths == []


def test_a_part_is_opened_once_for_all_questions(fetched):
    assert fetched("select sum(confidence) from segments").num_openings == 5
    assert fetched("select sum(len(words)) from segments").num_openings == 0


def test_one_recording_is_fetched_without_the_others_words(fetched, segment_bytes):
    traffic = fetched("select word, start_s from words where uri = 's3://archive/desk1/2026/01/02/00001.flac'")
    assert traffic.num_bytes < segment_bytes / 2


def test_a_search_fetches_no_words(fetched, segment_bytes):
    traffic = fetched("from search('harbour pilot')")
    assert traffic.num_bytes < segment_bytes / 2
