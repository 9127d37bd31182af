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
from dgasr.stages.heartbeat import Beat, read_beat
from pipelines.children import CONTRADICTED, REFUSED
from pipelines.request import RunRequest
from pipelines.scheduler import Condition, Order, Sighting

RUNS_PER_QUESTION = 200
"""Flow runs that the server gives in one answer."""

CONDITIONS = {
    StateType.SCHEDULED: Condition.QUEUED,
    StateType.PAUSED: Condition.QUEUED,
    StateType.PENDING: Condition.STARTING,
    StateType.RUNNING: Condition.RUNNING,
    StateType.CANCELLING: Condition.RUNNING,
    StateType.COMPLETED: Condition.DONE,
    StateType.FAILED: Condition.FAILED,
    StateType.CANCELLED: Condition.LOST,
    StateType.CRASHED: Condition.LOST,
}

NAMED_CONDITIONS = {REFUSED: Condition.REFUSED, CONTRADICTED: Condition.CONTRADICTED}
"""Names of failed states with which a child run says who has to act."""


class PrefectDispatch:
    """Starts child runs on the work pools and looks after them."""

    def __init__(self, client: PrefectClient, request: RunRequest) -> None:
        """Take note; nothing is asked yet.

        Args:
            client: connection to the server.
            request: what the run does.
        """
        self._client = client
        self._request = request
        pools = request.pools
        self._deployments = {"prepare": pools.prepare_deployment, "decode": pools.decode_deployment}

    async def check(self) -> list[str]:
        """See that child runs can be started.

        Returns:
            What a person should know though the run may go on: pools that are paused or have no worker.

        Raises:
            ConfigError: a deployment, its pool or the queue is missing.
            TransientError: the server does not answer.
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
                await self._ask(self._client.read_work_queue_by_name(self._request.pools.queue, work_pool_name=pool))
            except ObjectNotFound as error:
                raise ConfigError(
                    f"work pool {pool}: has no queue {self._request.pools.queue!r}. Run `make deploy`, or name another "
                    "queue in pools."
                ) from error
            workers = await self._ask(self._client.read_workers_for_work_pool(pool))
            if not any(worker.status == "ONLINE" for worker in workers):
                warnings.append(f"work pool {pool} has no worker online: start one with `make worker-{pool}`")
        return warnings

    async def submit(self, order: Order) -> str:
        """Start a child run; its key holds the attempt, since a server answers an old key with the old run."""
        name = f"{order.stage}-{order.number:05d}-{order.attempt}"
        child = await self._ask(
            arun_deployment(
                self._deployments[order.stage],
                client=self._client,
                parameters=self._parameters(order),
                timeout=0,
                flow_run_name=f"{self._request.run_id}-{name}",
                tags=[f"run:{self._request.run_id}"],
                idempotency_key=f"{self._request.run_id}/{order.stage}/{order.number}/{order.attempt}",
                work_queue_name=self._request.pools.queue,
            )
        )
        return str(child.id)

    async def look(self, orders: Mapping[str, Order]) -> Mapping[str, Sighting]:
        """Ask for all child runs at once, and read the beats of those that should have one."""
        states = await self._states(list(orders))
        sightings = await asyncio.gather(*(self._sight(order, states.get(key)) for key, order in orders.items()))
        return dict(zip(orders, sightings, strict=True))

    async def cancel(self, handle: str) -> None:
        """Ask a child run to end; one that ended or is gone stays as it is."""
        await self._set_state(handle, Cancelling(message="given up by the parent run"), force=False)

    async def is_called_off(self) -> bool:
        """Ask the server how this flow run itself stands."""
        if flow_run.id is None:
            return False
        itself = await self._ask(self._client.read_flow_run(UUID(flow_run.id)))
        return itself.state is not None and itself.state.type in (StateType.CANCELLING, StateType.CANCELLED)

    async def bury(self, handle: str) -> None:
        """Mark a child run as crashed, whatever its process does."""
        await self._set_state(handle, Crashed(message="it did not end when it was given up"), force=True)

    async def _set_state(self, handle: str, state: State[Any], *, force: bool) -> None:
        try:
            await self._ask(self._client.set_flow_run_state(UUID(handle), state, force=force))
        except ObjectNotFound:
            return

    async def _states(self, handles: list[str]) -> dict[str, State[Any] | None]:
        states: dict[str, State[Any] | None] = {}
        for first in range(0, len(handles), RUNS_PER_QUESTION):
            some = [UUID(handle) for handle in handles[first : first + RUNS_PER_QUESTION]]
            flow_runs = await self._ask(
                self._client.read_flow_runs(
                    flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=some)), limit=RUNS_PER_QUESTION
                )
            )
            states |= {str(found.id): found.state for found in flow_runs}
        return states

    async def _sight(self, order: Order, state: State[Any] | None) -> Sighting:
        if state is None:
            return Sighting(condition=Condition.LOST, message="its flow run was deleted")
        condition = NAMED_CONDITIONS.get(state.name or "", CONDITIONS[state.type])
        beat: Beat | None = None
        if condition in (Condition.RUNNING, Condition.LOST):
            uri = self._request.folder.beat_uri(order.stage, order.number, order.attempt)
            beat = await asyncio.to_thread(read_beat, uri)
        if beat is None:
            return Sighting(condition=condition, message=state.message or "")
        return Sighting(
            condition=condition, message=state.message or "", sequence=beat.sequence, num_done=beat.num_done,
            shard_ids=beat.shard_ids,
        )  # fmt: skip

    def _parameters(self, order: Order) -> dict[str, Any]:
        request = self._request
        parameters: dict[str, Any] = {
            "assignment": order.assignment_uri,
            "lake": request.lake_uri,
            "run_id": request.run_id,
            "number": order.number,
            "attempt": order.attempt,
        }
        if order.stage == "prepare":
            return parameters | {"num_processes": request.pools.prepare_processes}
        return parameters | {
            "engine": request.engine,
            "isolated": list(order.isolated),
            "gpu_hour_price": request.pools.gpu_hour_price,
        }

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
