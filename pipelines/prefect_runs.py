"""Child runs as Prefect flow runs of the deployments `prepare` and `decode`. The one file that asks Prefect's server.

A child run is linked to its parent, so that the server ends it when the parent is cancelled and could not do so itself.
"""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State, StateType
from prefect.deployments import arun_deployment
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.runtime import flow_run
from prefect.states import Cancelling, Crashed

from dgasr.errors import ConfigError, TransientError
from dgasr.stages.heartbeat import Heartbeat, read_heartbeat
from dgasr.stages.plan import ChildRun
from pipelines.child_runs import ChildState, ChildStatus
from pipelines.request import RunRequest
from pipelines.tasks import CONTRADICTED, REFUSED

RUNS_PER_QUESTION = 200
"""Flow runs that the server gives in one answer."""

STATES = {
    StateType.SCHEDULED: ChildState.QUEUED,
    StateType.PAUSED: ChildState.QUEUED,
    StateType.PENDING: ChildState.STARTING,
    StateType.RUNNING: ChildState.RUNNING,
    StateType.CANCELLING: ChildState.RUNNING,
    StateType.COMPLETED: ChildState.DONE,
    StateType.FAILED: ChildState.FAILED,
    StateType.CANCELLED: ChildState.LOST,
    StateType.CRASHED: ChildState.LOST,
}

NAMED_STATES = {REFUSED: ChildState.REFUSED, CONTRADICTED: ChildState.CONTRADICTED}
"""Names of failed states with which a child run says who has to act."""


class PrefectRuns:
    """Starts the child runs of a parent run on the work pools and looks after them."""

    def __init__(self, client: PrefectClient, run: RunRequest) -> None:
        self._client = client
        self._run = run
        pools = run.pools
        self._deployments = {"prepare": pools.prepare_deployment, "decode": pools.decode_deployment}

    async def check(self) -> list[str]:
        """See that child runs can be started; return what a person should know though the run may go on.

        ConfigError where a deployment, its pool or the queue is missing, TransientError where no server answers.
        """
        warnings = []
        for name in self._deployments.values():
            try:
                deployment = await self._ask(self._client.read_deployment_by_name(name))
            except ObjectNotFound as error:
                raise ConfigError(
                    f"{name}: no such deployment on {self._client.api_url}. Run `make deploy` against this server, or "
                    "name another one in pools; PREFECT_API_URL says which server is asked."
                ) from error
            pool = deployment.work_pool_name
            if pool is None:
                raise ConfigError(f"{name}: has no work pool. Run `make deploy`.")
            try:
                await self._ask(self._client.read_work_queue_by_name(self._run.pools.queue, work_pool_name=pool))
            except ObjectNotFound as error:
                raise ConfigError(
                    f"work pool {pool}: has no queue {self._run.pools.queue!r}. Run `make deploy`, or name another "
                    "queue in pools."
                ) from error
            workers = await self._ask(self._client.read_workers_for_work_pool(pool))
            if not any(worker.status == "ONLINE" for worker in workers):
                warnings.append(f"work pool {pool} has no worker online: start one with `make worker-{pool}`")
        return warnings

    async def submit(self, child: ChildRun) -> str:
        """Start a child run; its key holds the attempt, since a server answers an old key with the old run."""
        run = self._run
        parameters: dict[str, Any] = {"child": child, "lake": run.lake_uri, "run_id": run.run_id}
        if child.stage == "prepare":
            parameters |= {"num_processes": run.pools.prepare_processes}
        else:
            parameters |= {"engine": run.engine, "gpu_hour_price": run.pools.gpu_hour_price}
        started = await self._ask(
            arun_deployment(
                self._deployments[child.stage],
                client=self._client,
                parameters=parameters,
                timeout=0,
                flow_run_name=f"{run.run_id}-{child.name}",
                tags=[f"run:{run.run_id}"],
                idempotency_key=f"{run.run_id}/{child.name}",
                work_queue_name=run.pools.queue,
            )
        )
        return str(started.id)

    async def look(self, requests: Mapping[str, ChildRun]) -> Mapping[str, ChildStatus]:
        """Ask for all child runs at once, and read the heartbeats of those that should have one."""
        states = await self._states(list(requests))
        statuses = await asyncio.gather(*(self._status(child, states.get(key)) for key, child in requests.items()))
        return dict(zip(requests, statuses, strict=True))

    async def cancel(self, child_id: str) -> None:
        """Ask a child run to end; one that ended or is gone stays as it is."""
        await self._set_state(child_id, Cancelling(message="given up by the parent run"), force=False)

    async def is_cancelled(self) -> bool:
        """Ask the server how this flow run itself stands."""
        if flow_run.id is None:
            return False
        itself = await self._ask(self._client.read_flow_run(UUID(flow_run.id)))
        return itself.state is not None and itself.state.type in (StateType.CANCELLING, StateType.CANCELLED)

    async def mark_crashed(self, child_id: str) -> None:
        """Mark a child run as crashed, whatever its process does."""
        await self._set_state(child_id, Crashed(message="it did not end when it was given up"), force=True)

    async def _set_state(self, child_id: str, state: State[Any], *, force: bool) -> None:
        try:
            await self._ask(self._client.set_flow_run_state(UUID(child_id), state, force=force))
        except ObjectNotFound:
            return

    async def _states(self, child_ids: list[str]) -> dict[str, State[Any] | None]:
        states: dict[str, State[Any] | None] = {}
        for first in range(0, len(child_ids), RUNS_PER_QUESTION):
            some = [UUID(child_id) for child_id in child_ids[first : first + RUNS_PER_QUESTION]]
            flow_runs = await self._ask(
                self._client.read_flow_runs(
                    flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=some)), limit=RUNS_PER_QUESTION
                )
            )
            states |= {str(found.id): found.state for found in flow_runs}
        return states

    async def _status(self, child: ChildRun, state: State[Any] | None) -> ChildStatus:
        if state is None:
            return ChildStatus(state=ChildState.LOST, message="its flow run was deleted")
        child_state = NAMED_STATES.get(state.name or "", STATES[state.type])
        heartbeat: Heartbeat | None = None
        if child_state in (ChildState.RUNNING, ChildState.LOST):
            heartbeat = await asyncio.to_thread(read_heartbeat, self._run.folder.heartbeat_uri(child))
        if heartbeat is None:
            return ChildStatus(state=child_state, message=state.message or "")
        return ChildStatus(
            state=child_state, message=state.message or "", sequence=heartbeat.sequence, num_done=heartbeat.num_done,
            shard_ids=heartbeat.shard_ids,
        )  # fmt: skip

    async def _ask(self, answer: Any) -> Any:
        """Wait for an answer of the server; that it does not come may pass."""
        try:
            return await answer
        except httpx.TransportError as error:
            raise TransientError(f"{self._client.api_url}: Prefect's server does not answer ({error!r}).") from error
        except PrefectHTTPStatusError as error:
            code = error.response.status_code
            if code >= 500 or code in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS):
                raise TransientError(f"{self._client.api_url}: Prefect's server answers {error}.") from error
            raise ConfigError(
                f"{self._client.api_url}: Prefect's server refuses what this version of dgasr asks for ({error}). "
                "Run `make deploy` after every upgrade, and upgrade the workers too."
            ) from error
