"""One run from its request to its report, whoever asked for it: the daily flow, or a backfill."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.artifacts import (
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException

from dgasr.errors import ConfigError, DgasrError, IntegrityError, TransientError
from dgasr.lake.location import open_lake
from dgasr.lake.upkeep import KEPT, sweep_staging
from dgasr.stages.counts import Counts, RunSummary
from dgasr.stages.decode import decode_assignment
from dgasr.stages.engine import start_engine
from dgasr.stages.heartbeat import HeartbeatWriter
from dgasr.stages.plan import AssignmentConfig, plan_shards, read_assignment, write_assignments
from dgasr.stages.prepare import prepare_shard
from dgasr.stages.report import commit_run, decoding_devices, rejections, run_report, summarise
from dgasr.stages.selection import find_backlog
from dgasr.stages.staging import staged_uri_of
from dgasr.store.objects import probe_store
from pipelines.prefect_runs import PrefectRuns
from pipelines.request import RunRequest
from pipelines.scheduler import Planned, RunStatus, Scheduler
from pipelines.tasks import in_thread, storage_task

logger = logging.getLogger(__name__)

PROGRESS_INTERVAL_S = 30.0
"""Least time between two updates of the progress artifact, s: each is a row of the server's."""

ASSIGNMENT_HERE = AssignmentConfig(max_shards=8)
"""How much is read ahead of the decoder when both are one process: about eight hours of audio."""

REPORTED_REJECTIONS = 100
"""Rows of the artifact that lists what could not be used; the lake's view `rejections` holds all."""


NOTHING_DONE = Counts()


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What came of a run's assignments, as far as the lake cannot know it."""

    failures: tuple[str, ...] = ()
    """What was given up, one line for each assignment."""
    num_attempts: int | None = None
    """Child runs that were submitted; `None` where there were none to submit."""
    counts: Counts = NOTHING_DONE
    """What this process decoded itself."""


async def carry_out(request: RunRequest) -> RunSummary:
    """Transcribe what a request selects and the lake does not hold: plan, prepare and decode, report.

    Raises:
        ConfigError: the request is wrong; no work has begun, or a child run has refused it.
        IntegrityError: the lake contradicts itself.
        TransientError: not everything was done; what was committed stays, and the next run goes on there.
    """
    await _check(request)
    try:
        with HeartbeatWriter(request.folder.parent_heartbeat_uri) as heartbeat:
            num_held, assignments = await plan(request)
            work = await _work_through(assignments, request, heartbeat)
            summary = await report(request, num_held, work)
    except (ConfigError, IntegrityError):
        with suppress(DgasrError):  # the store may be what is wrong
            await in_thread(request.folder.delete)
        raise
    await in_thread(request.folder.delete)
    if work.failures:
        raise TransientError(
            f"{len(work.failures)} of {len(assignments)} assignments were given up ({work.failures[0]}). "
            f"{summary.line()}. "
            "The report lists them; the next run takes them up again."
        )
    return summary


async def _check(request: RunRequest) -> None:
    """Refuse a run that cannot work, before anything is listed."""
    if request.pools.mode == "pools":
        async with get_client() as client:
            for warning in await PrefectRuns(client, request).check():
                get_run_logger().warning(warning)


@storage_task
def plan(request: RunRequest) -> tuple[int, list[Planned]]:
    """Write down what is to be done; how many recordings the lake holds already, and the assignments."""
    probe_store(request.lake_uri)
    sweep_staging(open_lake(request.lake_uri), datetime.now(UTC) - KEPT)
    recipe_id = request.recipe.recipe_id
    backlog = find_backlog(request.selection, request.lake_uri, recipe_id)
    shards = plan_shards(backlog, recipe_id, request.shard, backlog.take)
    request.folder.write_recipe(request.recipe)
    config = ASSIGNMENT_HERE if request.pools.mode == "here" else request.pools.assignment
    assignments = [
        Planned(uri=uri, number=assignment.number, staged_bytes=assignment.estimated_staged_bytes)
        for uri, assignment in write_assignments(shards, request.folder.assignments_uri, config)
    ]
    if not backlog.num_listed:
        raise ConfigError(
            f"{', '.join(request.selection.names)}: nothing lies there. Give files, a folder or an s3:// prefix."
        )
    num_gone, num_back = backlog.note_presence(request.run_id)
    logger.info(
        "run %s: %d recordings listed, %d in the lake already, %d assignments to do; %d objects are gone, %d are back",
        request.run_id, backlog.num_listed, backlog.num_held, len(assignments), num_gone, num_back,
    )  # fmt: skip
    return backlog.num_held, assignments


async def _work_through(assignments: Sequence[Planned], request: RunRequest, heartbeat: HeartbeatWriter) -> Work:
    """Do the work, here or on the pools."""
    if request.pools.mode == "here":
        return await work_here(assignments, request, heartbeat)
    async with get_client() as client:
        children = PrefectRuns(client, request)
        scheduler = Scheduler(children, request.pools, on_turn=ProgressArtifact(heartbeat).show)
        status = await scheduler.run(assignments)
    failures = tuple(f"assignment {number}: {reason}" for number, reason in sorted(scheduler.failures.items()))
    return Work(failures=failures, num_attempts=status.num_attempts)


@storage_task
async def report(request: RunRequest, num_held: int, work: Work) -> RunSummary:
    """Write the run's row, and show the run as artifacts."""
    summary = await in_thread(_commit_summary, request, num_held, work)
    text = await in_thread(run_report, request.lake_uri, request.run_id, work.failures)
    await acreate_markdown_artifact(text, key="transcribe-run", description=summary.line())
    table = await in_thread(rejections, request.lake_uri, request.run_id, REPORTED_REJECTIONS)
    await acreate_table_artifact(table, key="transcribe-rejections", description="recordings not used as a whole")
    get_run_logger().info(summary.line())
    return summary


def _commit_summary(request: RunRequest, num_held: int, work: Work) -> RunSummary:
    """Ask the lake what the run committed, and write its row."""
    is_here = request.pools.mode == "here"
    wall_s = (datetime.now(UTC) - request.started_at).total_seconds()
    summary = summarise(request.lake_uri, request.run_id, request.recipe.recipe_id, num_held, wall_s)
    if is_here:  # without speech no model was loaded, and it is not loaded for its device's name only
        device = start_engine(request.engine).device if work.counts.stream_s else "none"
    else:
        device = decoding_devices(request.lake_uri, request.run_id)
    commit_run(
        request.lake_uri,
        summary,
        request.recipe,
        request.selection.names,
        device,
        request.started_at,
        busy_share=work.counts.busy_share,
        num_attempts=work.num_attempts,
        gpu_hour_price=(request.pools.gpu_hour_price or None) if is_here else None,
    )
    return summary


async def work_here(assignments: Sequence[Planned], request: RunRequest, heartbeat: HeartbeatWriter) -> Work:
    """Do the work in this process: decode one assignment while the next one's audio is read."""
    failures: list[str] = []
    counts = Counts()
    reads = (prepare_here(planned.uri, request) for planned in assignments)
    reading = asyncio.create_task(_read_next(reads))
    try:
        for planned in assignments:
            error = await reading
            reading = asyncio.create_task(_read_next(reads))
            try:
                if error is not None:
                    raise error
                counts += await decode_here(planned.uri, request, heartbeat)
            except TransientError as failure:
                failures.append(f"assignment {planned.number}: {failure}")
    finally:
        reading.cancel()
    return Work(failures=tuple(failures), counts=counts)


async def _read_next(reads: Iterator[Awaitable[None]]) -> TransientError | None:
    """Read the next assignment, if there is one; returns the error of one that a later run may read."""
    try:
        if (following := next(reads, None)) is not None:
            await following
    except TransientError as error:
        return error
    return None


@storage_task
def prepare_here(assignment_uri: str, request: RunRequest) -> None:
    """Read the audio of an assignment and stage its features."""
    for shard in read_assignment(assignment_uri).shards:
        staged_uri = staged_uri_of(request.lake_uri, request.recipe.recipe_id, shard)
        counts = prepare_shard(shard, request.recipe, staged_uri)
        get_run_logger().info("shard %s read: %s", shard.shard_id, counts.line())


@storage_task
def decode_here(assignment_uri: str, request: RunRequest, heartbeat: HeartbeatWriter) -> Counts:
    """Turn the staged features of an assignment into text and commit it, shard by shard."""
    start = partial(start_engine, request.engine)
    counts = decode_assignment(
        assignment_uri, request.recipe, start, request.lake_uri, request.run_id, progress=heartbeat
    )
    get_run_logger().info(counts.line())
    return counts


class ProgressArtifact:
    """Shows how far a run is, for whoever looks at it in Prefect, and in the parent's heartbeat. Never fails."""

    def __init__(self, heartbeat: HeartbeatWriter) -> None:
        """Show nothing yet."""
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
