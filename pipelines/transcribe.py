"""The flows `transcribe`, of all that lies at a source, and `backfill`, of a selection that may also only be counted.

Here is a run of either, from its request to its report. The stages do the work; Prefect drives them. Only URIs and
small values pass between runs and tasks. A child run handles an assignment of many shards, never a file. Where the work
is done, and that a daily run comes first, is said by the deployment's pools and queues.
"""

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

import httpx
from prefect import flow, get_run_logger
from prefect.artifacts import (
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.deployments import arun_deployment
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed

from dgasr.errors import ConfigError, DgasrError, IntegrityError, TransientError
from dgasr.stages.counts import RunSummary
from dgasr.stages.discover import whole_uri
from dgasr.stages.embedded import make_ready, transcribe_shards
from dgasr.stages.engine import EngineConfig, start_engine
from dgasr.stages.heartbeat import HeartbeatWriter
from dgasr.stages.plan import ShardConfig, plan_shards, write_assignments
from dgasr.stages.report import commit_run, rejections, run_report
from dgasr.stages.selection import Forecast, Selection, find_backlog, forecast
from dgasr.tables import markdown_table
from pipelines.prefect_runs import PrefectRuns
from pipelines.request import PoolsConfig, RunRequest, new_request
from pipelines.scheduler import Planned, RunStatus, Scheduler
from pipelines.tasks import in_thread, storage_task

DEPLOYMENT = "backfill/archive"


@flow(name="transcribe", persist_result=False)
async def transcribe(
    source: str | list[str], lake: str, engine: EngineConfig, shard: ShardConfig, pools: PoolsConfig
) -> Any:
    """Transcribe every recording under `source` that the lake does not hold for this recipe.

    Args:
        source: file, folder or `s3://bucket/prefix`, or several of them.
        lake: folder or `s3://bucket/prefix` of the lake.
        engine: which model transcribes, and how.
        shard: how much is committed at once.
        pools: where the work is done: in this process, or on the work pools.

    Returns:
        What the run did, the fields of `RunSummary`.
    """
    sources = (source,) if isinstance(source, str) else tuple(source)
    summary = await carry_out(new_request(Selection(sources=sources), lake, engine, shard, pools))
    return Completed(message=summary.line(), data=asdict(summary))


@flow(name="backfill", persist_result=False)
async def backfill(
    selection: Selection,
    lake: str,
    engine: EngineConfig,
    shard: ShardConfig,
    pools: PoolsConfig,
    dry_run: bool = False,
) -> Any:
    """Transcribe the recordings of a selection that the lake does not hold for this recipe, or holds and is to redo.

    Args:
        selection: which recordings, and which of them again.
        lake: folder or `s3://bucket/prefix` of the lake.
        engine: which model transcribes, and how.
        shard: how much is committed at once.
        pools: where the work is done: in this process, or on the work pools.
        dry_run: only count, and say what it would take and cost; touches nothing.

    Returns:
        What the run did, the fields of `RunSummary`; of a dry run, the fields of `Forecast`.
    """
    # The same for every attempt of this flow run: what an attempt has redone, the next one leaves alone.
    selection = selection.starting_at(flow_run.scheduled_start_time or datetime.now(UTC))
    if selection.redo_before is not None:
        again = selection.redo_before.isoformat()
        get_run_logger().info("transcribed before %s: again. If stopped, go on with redo_before=%s", again, again)
    request = new_request(selection, lake, engine, shard, pools)
    if dry_run:
        found = await in_thread(_forecast, request)
        await acreate_markdown_artifact(
            markdown_table(("what", "value"), found.rows()), key="backfill-forecast", description=found.line()
        )
        return Completed(message=f"dry run: {found.line()}", data=asdict(found))
    summary = await carry_out(request)
    return Completed(message=summary.line(), data=asdict(summary))


def submit(selection: Selection, lake_uri: str, engine: EngineConfig | None) -> str:
    """Hand a backfill to the deployment of the server that PREFECT_API_URL names, and do not wait for it.

    Folders and lists must lie at the same path on the workers. Without an engine the deployment's own is taken. Returns
    lines for a person; ConfigError where there is no server, or no such deployment on it.
    """
    server = PREFECT_API_URL.value()
    if not server:
        raise ConfigError("--pools: PREFECT_API_URL names no server. Set it, for example http://127.0.0.1:4200/api.")
    selection = replace(
        selection,
        sources=tuple(map(whole_uri, selection.sources)),
        uri_list=None if selection.uri_list is None else whole_uri(selection.uri_list),
    )
    parameters = {"selection": selection, "lake": lake_uri} | ({} if engine is None else {"engine": engine})
    try:
        started = asyncio.run(arun_deployment(DEPLOYMENT, parameters=parameters, timeout=0, as_subflow=False))
    except ObjectNotFound as error:
        raise ConfigError(f"{DEPLOYMENT}: no such deployment on {server}. Run `make deploy` against it.") from error
    except httpx.TransportError as error:
        raise ConfigError(f"{server}: no Prefect server answers ({error!r}). Check PREFECT_API_URL.") from error
    return (
        f"{started.name} ({started.id}) waits for a worker on {server}\n"
        f"engine: {started.parameters.get('engine')}\n"
        f"stop it: prefect flow-run cancel {started.id}\n"
    )


def _forecast(request: RunRequest) -> Forecast:
    backlog = find_backlog(request.selection, request.lake_uri, request.recipe.recipe_id)
    return forecast(backlog, request.lake_uri, request.recipe.recipe_id, request.pools.gpu_hour_price)


logger = logging.getLogger(__name__)

PROGRESS_INTERVAL_S = 30.0
"""Least time between two updates of the progress artifact, s: each is a row of the server's."""

REPORTED_REJECTIONS = 100
"""Rows of the artifact that lists what could not be used; the lake's view `rejections` holds all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What came of a run's work, as far as the lake cannot know it."""

    num_held: int = 0
    """Recordings that the lake held before."""
    failures: tuple[str, ...] = ()
    """What was given up, one line each."""
    num_attempts: int | None = None
    """Child runs that were submitted; `None` where there were none to submit."""
    busy_share: float | None = None
    """Share of the time in which the model of this process had work; `None` where it has none."""


async def carry_out(request: RunRequest) -> RunSummary:
    """Transcribe what a request selects and the lake does not hold, in this process or on the pools, and report.

    ConfigError where the request is wrong: no work has begun, or a child run has refused it; IntegrityError where the
    lake contradicts itself; TransientError where not everything was done: what was committed stays, and the next run
    goes on there.
    """
    try:
        with HeartbeatWriter(request.folder.heartbeat_uri()) as heartbeat:
            work = await (_work_here if request.is_here else _work_on_pools)(request, heartbeat)
            summary = await report(request, work)
    except (ConfigError, IntegrityError):
        with suppress(DgasrError):  # the store may be what is wrong
            await in_thread(request.folder.delete)
        raise
    await in_thread(request.folder.delete)
    if work.failures:
        raise TransientError(
            f"{len(work.failures)} pieces of work were given up ({work.failures[0]}). {summary.line()}. "
            "The report lists them; the next run takes them up again."
        )
    return summary


async def _work_here(request: RunRequest, heartbeat: HeartbeatWriter) -> Work:
    """Do the work in this process, as `dgasr transcribe` does."""
    try:
        return await transcribe_here(request, heartbeat)
    except TransientError as error:
        return Work(failures=(str(error),))


@storage_task
def transcribe_here(request: RunRequest, heartbeat: HeartbeatWriter) -> Work:
    """Transcribe shard by shard; a try after a failure of the storage goes on with what the lake does not hold yet."""
    backlog = find_backlog(request.selection, request.lake_uri, request.recipe.recipe_id)
    counts = transcribe_shards(
        backlog, request.lake_uri, request.recipe, partial(start_engine, request.engine), heartbeat, request.run_id,
        request.shard,
    )  # fmt: skip
    return Work(num_held=backlog.num_held, busy_share=counts.busy_share)


async def _work_on_pools(request: RunRequest, heartbeat: HeartbeatWriter) -> Work:
    """Plan the work and take it through the work pools, unless they cannot do it: nothing is listed then."""
    async with get_client() as client:
        children = PrefectRuns(client, request)
        for warning in await children.check():
            get_run_logger().warning(warning)
        num_held, assignments = await plan(request)
        scheduler = Scheduler(children, request.pools, on_turn=ProgressArtifact(heartbeat).show)
        status = await scheduler.run(assignments)
    failures = tuple(f"assignment {number}: {reason}" for number, reason in sorted(scheduler.failures.items()))
    return Work(num_held=num_held, failures=failures, num_attempts=status.num_attempts)


@storage_task
def plan(request: RunRequest) -> tuple[int, list[Planned]]:
    """Write down what is to be done; how many recordings the lake holds already, and the assignments."""
    make_ready(request.lake_uri)
    recipe_id = request.recipe.recipe_id
    backlog = find_backlog(request.selection, request.lake_uri, recipe_id)
    shards = plan_shards(backlog, recipe_id, request.shard, backlog.take)
    request.folder.write_recipe(request.recipe)
    assignments = [
        Planned(uri=uri, number=assignment.number, staged_bytes=assignment.estimated_staged_bytes)
        for uri, assignment in write_assignments(shards, request.folder.assignments_uri, request.pools.assignment)
    ]
    num_gone, num_back = backlog.note_presence(request.run_id)
    logger.info(
        "run %s: %d recordings listed, %d in the lake already, %d assignments to do; %d objects are gone, %d are back",
        request.run_id, backlog.num_listed, backlog.num_held, len(assignments), num_gone, num_back,
    )  # fmt: skip
    return backlog.num_held, assignments


@storage_task
async def report(request: RunRequest, work: Work) -> RunSummary:
    """Write the run's row, and show the run as artifacts."""
    summary = await in_thread(_commit_run, request, work)
    text = await in_thread(run_report, request.lake_uri, request.run_id, work.failures)
    await acreate_markdown_artifact(text, key="transcribe-run", description=summary.line())
    table = await in_thread(rejections, request.lake_uri, request.run_id, REPORTED_REJECTIONS)
    await acreate_table_artifact(table, key="transcribe-rejections", description="recordings not used as a whole")
    get_run_logger().info(summary.line())
    return summary


def _commit_run(request: RunRequest, work: Work) -> RunSummary:
    price = request.pools.gpu_hour_price or None
    return commit_run(
        request.lake_uri, request.recipe, run_id=request.run_id, num_held=work.num_held,
        wall_s=(datetime.now(UTC) - request.started_at).total_seconds(),
        engine=partial(start_engine, request.engine) if request.is_here else None,
        source=" ".join(request.selection.names), started_at=request.started_at, busy_share=work.busy_share,
        num_attempts=work.num_attempts, gpu_hour_price=price if request.is_here else None,
    )  # fmt: skip


class ProgressArtifact:
    """Shows how far a run is, in Prefect and in the parent's heartbeat. Never fails."""

    def __init__(self, heartbeat: HeartbeatWriter) -> None:
        self._heartbeat = heartbeat
        self._artifact_id: UUID | None = None
        self._shown = ""
        self._shown_at = 0.0

    async def show(self, status: RunStatus) -> None:
        """Show how far the run is, if something changed and the last time is long enough ago."""
        line, now = status.line(), time.monotonic()
        is_over = status.num_done + status.num_failed == status.num_assignments
        if line == self._shown or (self._shown and not is_over and now - self._shown_at < PROGRESS_INTERVAL_S):
            return
        self._shown, self._shown_at = line, now
        logger.info(line)
        self._heartbeat.describe(line)
        percent = 100 * status.num_done / max(status.num_assignments, 1)
        try:
            if self._artifact_id is None:
                self._artifact_id = await acreate_progress_artifact(
                    percent, key="transcribe-progress", description=line
                )
            else:
                await aupdate_progress_artifact(self._artifact_id, percent, description=line)
        except (httpx.HTTPError, PrefectException) as error:
            logger.warning("progress is not shown: %r", error)
