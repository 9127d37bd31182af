"""The flow on a folder, with a transcriber that needs no model; one temporary Prefect server for the whole file."""

import asyncio
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.sorting import FlowRunSort

from dgasr.errors import ConfigError, TransientError
from dgasr.lake.views import connect
from dgasr.recipe import Recipe
from dgasr.stages.engine import EngineConfig
from dgasr.stages.heartbeat import HeartbeatWriter
from dgasr.stages.plan import AssignmentConfig, ShardConfig
from pipelines import run as pipelines_run
from pipelines.request import PoolsConfig
from pipelines.transcribe import transcribe
from tests.pipelines.silent import start_silently, write_noise

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("prefect")]


@pytest.fixture(autouse=True)
def engine(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    start_silently(recipe, monkeypatch)
    monkeypatch.setattr(pipelines_run, "ASSIGNMENT_HERE", AssignmentConfig(max_shards=2))


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


def test_a_run_of_several_assignments_gives_every_recording_its_row_and_shows_it(archive: Path):
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
    assert len(task_runs) == 1 + 2 * 3 + 1  # plan, three assignments prepared and decoded, report
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
    for task in (pipelines_run.plan, pipelines_run.report, pipelines_run.prepare_here, pipelines_run.decode_here):
        monkeypatch.setattr(task, "fn", weighing(task.fn, weights))
    run(archive, ShardConfig())
    assert len(weights) > 8
    assert max(weights) < 8_000  # features of one of these seconds are 16 kB, its samples 32 kB


def test_storage_that_fails_for_a_while_only_delays_a_run(archive: Path, monkeypatch: pytest.MonkeyPatch):
    failures = iter([TransientError("the store does not answer"), TransientError("still not")])
    prepare_shard = pipelines_run.prepare_shard

    def fail_twice(*arguments):
        error = next(failures, None)
        if error:
            raise error
        return prepare_shard(*arguments)

    monkeypatch.setattr(pipelines_run, "prepare_shard", fail_twice)
    monkeypatch.setattr(pipelines_run, "prepare_here", pipelines_run.prepare_here.with_options(retry_delay_seconds=0))
    assert run(archive)["num_recordings"] == 6


def test_a_wrong_request_fails_at_once(archive: Path, monkeypatch: pytest.MonkeyPatch):
    calls: list[object] = []

    def refuse(*arguments):
        calls.append(arguments)
        raise ConfigError("no such bucket")

    monkeypatch.setattr(pipelines_run, "find_backlog", refuse)
    with pytest.raises(ConfigError, match="no such bucket"):
        run(archive)
    assert len(calls) == 1


def test_a_source_where_nothing_lies_is_a_wrong_request(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="nothing lies there"):
        run(tmp_path / "empty")
    assert not [path for path in (tmp_path / "lake").rglob("*") if path.is_file()]


def test_an_assignment_whose_storage_stays_broken_is_given_up_and_the_others_are_done(
    archive: Path, monkeypatch: pytest.MonkeyPatch
):
    prepare_shard = pipelines_run.prepare_shard

    def fail_for_c(shard, *arguments):
        if shard.recordings[0].uri.endswith("c.wav"):
            raise TransientError("the store does not answer")
        return prepare_shard(shard, *arguments)

    monkeypatch.setattr(pipelines_run, "prepare_shard", fail_for_c)
    monkeypatch.setattr(pipelines_run, "prepare_here", pipelines_run.prepare_here.with_options(retry_delay_seconds=0))
    with pytest.raises(TransientError, match="1 of 3 assignments were given up"):
        run(archive)
    assert ask(archive, "select num_recordings from runs") == [(4,)]
