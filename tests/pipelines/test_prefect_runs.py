"""Child runs through a client that answers as Prefect's server does; the real server is asked by tests/proofs."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import (
    AwaitingConcurrencySlot,
    Cancelled,
    Cancelling,
    Completed,
    Crashed,
    Failed,
    Late,
    Paused,
    Pending,
    Running,
    Scheduled,
    State,
)

from dgasr.errors import ConfigError, TransientError
from dgasr.recipe import Recipe
from dgasr.records import Shard
from dgasr.stages.engine import EngineConfig
from dgasr.stages.heartbeat import HeartbeatWriter
from dgasr.stages.plan import ChildRun, ShardConfig
from dgasr.stages.selection import Selection
from pipelines import prefect_runs
from pipelines.child_runs import ChildState, ChildStatus
from pipelines.children import decode, prepare
from pipelines.prefect_runs import PrefectRuns
from pipelines.request import PoolsConfig, RunRequest

CHILD = ChildRun(stage="decode", number=3, attempt=2, assignment_uri="a/00003.json", suspects=("x",), rejected=("y",))


class FakeClient:
    """Knows one flow run, all deployments and queues, and two workers."""

    api_url = "http://server/api"

    def __init__(self) -> None:
        self.state: State | None = Running()
        self.set: list[tuple[UUID, State, bool]] = []
        self.missing = ""
        self.workers = [SimpleNamespace(status="OFFLINE"), SimpleNamespace(status="ONLINE")]

    async def read_deployment_by_name(self, name: str) -> Any:
        self._refuse(name)
        return SimpleNamespace(work_pool_name=name.split("/")[1])

    async def read_work_queue_by_name(self, name: str, work_pool_name: str) -> None:
        self._refuse(f"{work_pool_name}:{name}")

    async def read_workers_for_work_pool(self, pool: str) -> list[Any]:
        return self.workers

    async def read_flow_runs(self, flow_run_filter: Any, limit: int) -> list[Any]:
        return [SimpleNamespace(id=key, state=self.state) for key in flow_run_filter.id.any_ if self.state is not None]

    async def read_flow_run(self, key: UUID) -> Any:
        return SimpleNamespace(id=key, state=self.state)

    async def set_flow_run_state(self, key: UUID, state: State, force: bool) -> None:
        self.set.append((key, state, force))

    def _refuse(self, name: str) -> None:
        if name == self.missing:
            raise ObjectNotFound(http_exc=ValueError(name))


@pytest.fixture
def request_(recipe: Recipe, tmp_path: Path) -> RunRequest:
    return RunRequest(
        selection=Selection(sources=("s3://archive",)), lake_uri=str(tmp_path), engine=EngineConfig(),
        shard=ShardConfig(), pools=PoolsConfig(mode="pools", queue="backfill", gpu_hour_price=2.5), recipe=recipe,
        run_id="run", started_at=datetime.now(UTC),
    )  # fmt: skip


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def runs(client: FakeClient, request_: RunRequest) -> PrefectRuns:
    return PrefectRuns(client, request_)


def look(runs: PrefectRuns) -> ChildStatus:
    child_id = str(uuid4())
    return asyncio.run(runs.look({child_id: CHILD}))[child_id]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (Scheduled(), ChildState.QUEUED),
        (Late(), ChildState.QUEUED),
        (AwaitingConcurrencySlot(), ChildState.QUEUED),
        (Paused(), ChildState.QUEUED),
        (Pending(), ChildState.STARTING),
        (Running(), ChildState.RUNNING),
        (Cancelling(), ChildState.RUNNING),
        (Completed(), ChildState.DONE),
        (Failed(), ChildState.FAILED),
        (Failed(name="Refused"), ChildState.REFUSED),
        (Failed(name="Contradicted"), ChildState.CONTRADICTED),
        (Crashed(), ChildState.LOST),
        (Cancelled(), ChildState.LOST),
        (None, ChildState.LOST),
    ],
)
def test_what_the_server_says_of_a_child_run_is_understood(
    state: State | None, expected: ChildState, client: FakeClient, runs: PrefectRuns
):
    client.state = state
    assert look(runs).state == expected


def test_a_child_is_seen_with_its_last_heartbeat_and_a_crashed_one_with_the_shards_it_left_behind(
    client: FakeClient, runs: PrefectRuns, request_: RunRequest
):
    assert look(runs).sequence == -1
    with HeartbeatWriter(request_.folder.heartbeat_uri(CHILD)) as heartbeat:
        heartbeat.advance(7)
        heartbeat.begin_reading(Shard(shard_id="shard", recordings=()))
        seen = look(runs)
    assert (seen.num_done, seen.shard_ids) == (7, ("shard",))
    assert look(runs).sequence > seen.sequence
    client.state = Crashed()
    assert look(runs).shard_ids == ("shard",)


def test_many_child_runs_are_asked_for_some_at_a_time(runs: PrefectRuns, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prefect_runs, "RUNS_PER_QUESTION", 2)
    requests = {str(uuid4()): CHILD for _ in range(5)}
    assert set(asyncio.run(runs.look(requests))) == set(requests)


def submit(
    runs: PrefectRuns, monkeypatch: pytest.MonkeyPatch, answer: Callable[[], Any], child: ChildRun = CHILD
) -> dict[str, Any]:
    asked: dict[str, Any] = {}

    async def run(name: str, **arguments: Any) -> Any:
        asked.update(arguments, name=name)
        return answer()

    monkeypatch.setattr(prefect_runs, "arun_deployment", run)
    asyncio.run(runs.submit(child))
    return asked


@pytest.mark.parametrize(("stage", "flow"), [("prepare", prepare), ("decode", decode)])
def test_a_child_run_is_keyed_by_its_attempt_waits_in_its_parents_queue_and_has_the_parameters_of_its_flow(
    stage, flow, runs: PrefectRuns, monkeypatch: pytest.MonkeyPatch
):
    child = replace(CHILD, stage=stage)
    asked = submit(runs, monkeypatch, lambda: SimpleNamespace(id=uuid4()), child)
    assert asked["name"] == {"prepare": "prepare/cpu", "decode": "decode/gpu"}[stage]
    assert asked["idempotency_key"] == f"run/{stage}-00003-2"
    assert (asked["work_queue_name"], asked["timeout"]) == ("backfill", 0)
    assert flow.validate_parameters(asked["parameters"])["child"] == child


def status_error(code: int) -> PrefectHTTPStatusError:
    question = httpx.Request("POST", "http://server/api")
    return PrefectHTTPStatusError("no", request=question, response=httpx.Response(code, request=question))


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        *((e, TransientError, "http://server/api") for e in (httpx.ConnectError("refused"), httpx.ReadTimeout("slow"))),
        *((status_error(code), TransientError, "http://server/api") for code in (500, 503, 429)),
        *((status_error(code), ConfigError, "make deploy") for code in (409, 422)),
    ],
)
def test_a_server_that_does_not_answer_is_told_from_one_with_deployments_of_another_version(
    answer: Exception, error: type[Exception], message: str, runs: PrefectRuns, monkeypatch: pytest.MonkeyPatch
):
    def fail() -> None:
        raise answer

    with pytest.raises(error, match=message):
        submit(runs, monkeypatch, fail)


def test_a_child_run_is_asked_to_end_and_only_then_marked_as_crashed(client: FakeClient, runs: PrefectRuns):
    key = uuid4()
    asyncio.run(runs.cancel(str(key)))
    asyncio.run(runs.mark_crashed(str(key)))
    assert [(state.name, force) for _, state, force in client.set] == [("Cancelling", False), ("Crashed", True)]


@pytest.mark.parametrize(("state", "expected"), [(Cancelling(), True), (Cancelled(), True), (Running(), False)])
def test_a_run_that_was_cancelled_is_told_from_one_that_is_only_stopped(
    client: FakeClient, runs: PrefectRuns, monkeypatch: pytest.MonkeyPatch, state: State, expected: bool
):
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", str(uuid4()))
    client.state = state
    assert asyncio.run(runs.is_cancelled()) is expected


@pytest.mark.parametrize("missing", ["prepare/cpu", "decode/gpu", "cpu:backfill", "gpu:backfill"])
def test_a_missing_deployment_or_queue_is_refused_at_the_start(missing: str, client: FakeClient, runs: PrefectRuns):
    client.missing = missing
    with pytest.raises(ConfigError, match="make deploy"):
        asyncio.run(runs.check())


def test_a_pool_without_a_worker_is_only_worth_a_warning(client: FakeClient, runs: PrefectRuns):
    assert asyncio.run(runs.check()) == []
    client.workers = [SimpleNamespace(status="OFFLINE")]
    assert any("make worker-gpu" in warning for warning in asyncio.run(runs.check()))
