"""The flows `transcribe` and `backfill` on a folder, with a transcriber that needs no model, and handing one over.

One temporary Prefect server serves the whole file.
"""

import asyncio
import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import PREFECT_API_URL, temporary_settings

from dgasr.errors import ConfigError, TransientError
from dgasr.lake.views import connect
from dgasr.recipe import Recipe
from dgasr.stages import embedded
from dgasr.stages.engine import EngineConfig
from dgasr.stages.heartbeat import HeartbeatWriter
from dgasr.stages.plan import ShardConfig
from dgasr.stages.selection import Selection
from pipelines import transcribe as pipelines_transcribe
from pipelines.request import PoolsConfig
from pipelines.transcribe import backfill, submit, transcribe
from tests.pipelines.silent import start_silently, write_noise

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("prefect"), pytest.mark.usefixtures("temporary_server")]


@pytest.fixture(autouse=True)
def engine(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    start_silently(recipe, monkeypatch)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = write_noise(tmp_path / "archive", "abcde")
    (folder / "empty.wav").touch()
    return folder


def run(archive: Path, shard: ShardConfig = ShardConfig(max_recordings=1)) -> dict:  # noqa: B008
    lake = str(archive.parent / "lake")
    return asyncio.run(
        transcribe(source=str(archive), lake=lake, engine=EngineConfig(), shard=shard, pools=PoolsConfig())
    )


def ask(archive: Path, query: str) -> list[tuple]:
    with connect(str(archive.parent / "lake")) as connection:
        return connection.execute(query).fetchall()


def test_a_run_gives_every_recording_its_row_and_shows_it(archive: Path):
    summary = run(archive)
    assert (summary["num_recordings"], summary["num_rejected"]) == (6, 1)
    assert ask(archive, "select status, count(*)::int from recordings group by all order by all") == [
        ("ok", 5),
        ("rejected", 1),
    ]
    assert ask(archive, "select num_recordings from runs") == [(6,)]
    assert not [path for path in (archive.parent / "lake" / "staging").rglob("*") if path.is_file()]
    asyncio.run(check_server(summary["run_id"]))
    assert run(archive)["num_held"] == 6


async def check_server(run_id: str) -> None:
    """What a person sees in Prefect: one useful line, a report, a table; and no task run for a file."""
    async with get_client() as client:
        (flow_run,) = await client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)
        only = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id]))
        task_runs = await client.read_task_runs(flow_run_filter=only)
        found = await client.read_artifacts(flow_run_filter=only)
        artifacts = {artifact.key: artifact for artifact in found}
    assert flow_run.state.message.startswith("6 recordings (1 rejected, 0 partial)")
    assert len(task_runs) == 2  # the work and the report
    assert run_id in artifacts["transcribe-run"].data
    assert "empty_file" in artifacts["transcribe-rejections"].data


def weighing(work: Callable, weights: list[int]) -> Callable:
    """What a task does, with a note of how many bytes it takes and gives; a heartbeat is no value, but whom to tell."""

    async def weighed(*arguments):
        result = await work(*arguments)
        weights.extend(
            len(pickle.dumps(item)) for item in (*arguments, result) if not isinstance(item, HeartbeatWriter)
        )
        return result

    return weighed


def test_only_small_values_travel_between_tasks(archive: Path, monkeypatch: pytest.MonkeyPatch):
    weights: list[int] = []
    for task in (pipelines_transcribe.transcribe_here, pipelines_transcribe.report):
        monkeypatch.setattr(task, "fn", weighing(task.fn, weights))
    run(archive, ShardConfig())
    assert len(weights) > 4
    assert max(weights) < 8_000  # features of one of these seconds are 16 kB, its samples 32 kB


def fail_for(name: str, num_times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the storage fail so often when a recording is read."""
    prepare_shard, failures = embedded.prepare_shard, [None] * num_times

    def fail(shard, *arguments):
        if shard.recordings[0].uri.endswith(name) and failures:
            failures.pop()
            raise TransientError("the store does not answer")
        return prepare_shard(shard, *arguments)

    monkeypatch.setattr(embedded, "prepare_shard", fail)
    quick = pipelines_transcribe.transcribe_here.with_options(retry_delay_seconds=0)
    monkeypatch.setattr(pipelines_transcribe, "transcribe_here", quick)


def test_storage_that_fails_for_a_while_only_delays_a_run(archive: Path, monkeypatch: pytest.MonkeyPatch):
    fail_for("a.wav", 2, monkeypatch)
    assert run(archive)["num_recordings"] == 6
    assert ask(archive, "select count(*)::int, count(distinct run_id)::int from recordings") == [(6, 1)]


def test_a_wrong_request_fails_at_once(archive: Path, monkeypatch: pytest.MonkeyPatch):
    calls: list[object] = []

    def refuse(*arguments):
        calls.append(arguments)
        raise ConfigError("no such bucket")

    monkeypatch.setattr(pipelines_transcribe, "find_backlog", refuse)
    with pytest.raises(ConfigError, match="no such bucket"):
        run(archive)
    assert len(calls) == 1


def test_a_source_where_nothing_lies_is_a_wrong_request(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="nothing lies there"):
        run(tmp_path / "empty")
    assert not [path for path in (tmp_path / "lake").rglob("*") if path.is_file()]


def test_what_storage_keeps_from_being_read_is_given_up_and_the_rest_is_done(
    archive: Path, monkeypatch: pytest.MonkeyPatch
):
    fail_for("c.wav", 9, monkeypatch)
    with pytest.raises(TransientError, match="1 pieces of work were given up"):
        run(archive)
    assert ask(archive, "select num_recordings from runs") == [(5,)]


def fill(archive: Path, dry_run: bool = False, **selection: object) -> dict:
    """Run `backfill`."""
    return asyncio.run(
        backfill(
            selection=Selection(sources=(str(archive),), **selection),
            lake=str(archive.parent / "lake"),
            engine=EngineConfig(),
            shard=ShardConfig(),
            pools=PoolsConfig(),
            dry_run=dry_run,
        )
    )


async def newest_run() -> tuple[str, dict]:
    async with get_client() as client:
        flow_runs = await client.read_flow_runs()
        artifacts = {artifact.key: artifact for artifact in await client.read_artifacts()}
    newest = max(flow_runs, key=lambda flow_run: flow_run.created)
    return newest.state.message, artifacts


def test_a_selection_is_transcribed_and_what_is_forced_again_is_a_higher_take(archive: Path):
    assert fill(archive, path_pattern="*/[ab].wav")["num_recordings"] == 2
    assert fill(archive, force=True, path_pattern="*/a.wav")["num_recordings"] == 1
    query = "select split_part(uri, '/', -1), take from recordings order by uri"
    assert ask(archive, query) == [("a.wav", 1), ("b.wav", 0)]
    assert fill(archive, redo_before=datetime(2020, 1, 1, tzinfo=UTC))["num_held"] == 2


def test_a_dry_run_writes_nothing_and_says_what_it_found(archive: Path):
    found = fill(archive, dry_run=True)
    assert (found["num_new"], found["num_listed"]) == (6, 6)
    assert not (archive.parent / "lake").exists()
    message, artifacts = asyncio.run(newest_run())
    assert message.startswith("dry run: 6 of 6 recordings")
    assert "GPU time, estimated" in artifacts["backfill-forecast"].data


def test_without_a_server_nothing_can_be_handed_over():
    with pytest.raises(ConfigError, match="PREFECT_API_URL names no server"):
        submit(Selection(sources=("/a",)), "/lake", None)


def test_a_server_that_does_not_answer_is_named():
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(ConfigError, match=r"http://127\.0\.0\.1:9/api: no Prefect server answers"),
    ):
        submit(Selection(sources=("/a",)), "/lake", None)
