"""One run from its request to its report, whoever asked for it: the daily flow, or a backfill."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
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
from dgasr.stages.decode import DecodedAssignment, decode_assignment
from dgasr.stages.engine import start_engine
from dgasr.stages.heartbeat import Beating
from dgasr.stages.plan import AssignmentConfig, plan_shards, read_assignment, write_assignments
from dgasr.stages.prepare import prepare_shard
from dgasr.stages.report import RunSummary, commit_run, decoding_devices, rejections, run_report, summarise
from dgasr.stages.selection import find_backlog
from dgasr.stages.staging import staged_uri_of, sweep_staging
from dgasr.store.objects import probe_store
from pipelines.children import in_thread, storage_task
from pipelines.prefect_runs import PrefectDispatch
from pipelines.request import RunRequest
from pipelines.scheduler import Conductor, Planned, Tally, Worked

logger = logging.getLogger(__name__)

KEY = "transcribe-progress"

INTERVAL_S = 30.0
"""Least time between two updates, s: each is a row of the server's."""


class Progress:
    """Shows how far a run is, in an artifact and in the parent's beat."""

    def __init__(self, beating: Beating, now: Callable[[], float] = time.monotonic) -> None:
        """Show nothing yet.

        Args:
            beating: beats for the parent.
            now: a clock that never goes back, s.
        """
        self._beating = beating
        self._now = now
        self._artifact_id: UUID | None = None
        self._shown = ""
        self._shown_at = 0.0

    async def show(self, tally: Tally) -> None:
        """Show how far the run is, if something changed and the last time is long enough ago."""
        line = tally.line()
        is_over = tally.num_done + tally.num_failed == tally.num_assignments
        if line == self._shown or (self._shown and not is_over and self._now() - self._shown_at < INTERVAL_S):
            return
        self._shown, self._shown_at = line, self._now()
        logger.info(line)
        self._beating.say(line)
        percent = 100 * tally.num_done / max(tally.num_assignments, 1)
        try:
            if self._artifact_id is None:
                self._artifact_id = await acreate_progress_artifact(percent, key=KEY, description=line)
            else:
                await aupdate_progress_artifact(self._artifact_id, percent, description=line)
        except (httpx.HTTPError, PrefectException) as error:
            logger.warning("progress is not shown: %r", error)


async def work_here(assignments: Sequence[Planned], request: RunRequest, beating: Beating) -> Worked:
    """Decode one assignment while the next one's audio is read.

    Returns:
        What was not done since the storage failed again and again, and how busy the model was.

    Raises:
        ConfigError: the model cannot be loaded.
        IntegrityError: the lake contradicts itself.
    """
    failures: list[str] = []
    done: list[DecodedAssignment] = []
    reads = (prepare_here(planned.uri, request) for planned in assignments)
    reading = asyncio.create_task(_read_next(reads))
    try:
        for planned in assignments:
            error = await reading
            reading = asyncio.create_task(_read_next(reads))
            try:
                if error is not None:
                    raise error
                done.append(await decode_here(planned.uri, request, beating))
            except TransientError as failure:
                failures.append(f"assignment {planned.number}: {failure}")
    finally:
        reading.cancel()
    return Worked(failures=tuple(failures), busy_share=_busy_share(done))


def _busy_share(done: Sequence[DecodedAssignment]) -> float | None:
    """Average over assignments by the time they took; `None` where nothing was decoded."""
    known = [(item.busy_share, item.wall_s) for item in done if item.busy_share is not None]
    return sum(share * wall_s for share, wall_s in known) / sum(wall_s for _, wall_s in known) if known else None


async def _read_next(reads: Iterator[Awaitable[None]]) -> TransientError | None:
    """Read the next assignment, if there is one; returns the error of one that a later run may read."""
    try:
        if (following := next(reads, None)) is not None:
            await following
    except TransientError as error:
        return error
    return None


@storage_task
async def prepare_here(assignment_uri: str, request: RunRequest) -> None:
    """Read the audio of an assignment and stage its features."""
    for shard in (await in_thread(read_assignment, assignment_uri)).shards:
        staged_uri = staged_uri_of(request.lake_uri, request.recipe.recipe_id, shard)
        prepared = await in_thread(prepare_shard, shard, request.recipe, staged_uri)
        get_run_logger().info(prepared.line())


@storage_task
async def decode_here(assignment_uri: str, request: RunRequest, beating: Beating) -> DecodedAssignment:
    """Turn the staged features of an assignment into text and commit it, shard by shard."""
    decoded = await in_thread(
        decode_assignment,
        assignment_uri,
        request.recipe,
        partial(start_engine, request.engine),
        request.lake_uri,
        request.run_id,
        beating=beating,
    )
    get_run_logger().info(decoded.line())
    return decoded


logger = logging.getLogger(__name__)

ASSIGNMENT_HERE = AssignmentConfig(max_shards=8)
"""How much is read ahead of the decoder when both are one process: about eight hours of audio."""

REPORTED_REJECTIONS = 100
"""Rows of the artifact that lists what could not be used; the lake's view `rejections` holds all."""


async def carry_out(request: RunRequest) -> RunSummary:
    """Transcribe what a request selects and the lake does not hold: plan, prepare and decode, report.

    Args:
        request: what to do.

    Returns:
        What was done.

    Raises:
        ConfigError: the request is wrong; no work has begun, or a child run has refused it.
        IntegrityError: the lake contradicts itself.
        TransientError: not everything was done; what was committed stays, and the next run goes on there.
    """
    await _check(request)
    try:
        with Beating(request.folder.parent_beat_uri) as beating:
            num_held, assignments = await plan(request)
            worked = await _work_through(assignments, request, beating)
            summary = await report(request, num_held, worked)
    except (ConfigError, IntegrityError):
        with suppress(DgasrError):  # the store may be what is wrong
            await in_thread(request.folder.delete)
        raise
    await in_thread(request.folder.delete)
    if worked.failures:
        raise TransientError(
            f"{len(worked.failures)} of {len(assignments)} assignments were given up ({worked.failures[0]}). "
            f"{summary.line()}. "
            "The report lists them; the next run takes them up again."
        )
    return summary


async def _check(request: RunRequest) -> None:
    """Refuse a run that cannot work, before anything is listed."""
    if request.pools.mode == "pools":
        async with get_client() as client:
            for warning in await PrefectDispatch(client, request).check():
                get_run_logger().warning(warning)


@storage_task
async def plan(request: RunRequest) -> tuple[int, list[Planned]]:
    """Write down what is to be done; how many recordings the lake holds already, and the assignments."""
    return await in_thread(_plan, request)


def _plan(request: RunRequest) -> tuple[int, list[Planned]]:
    probe_store(request.lake_uri)
    sweep_staging(request.lake_uri, datetime.now(UTC))
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
        raise ConfigError(f"{', '.join(request.sources)}: nothing lies there. Give files, a folder or an s3:// prefix.")
    num_gone, num_back = backlog.note_presence(request.run_id)
    logger.info(
        "run %s: %d recordings listed, %d in the lake already, %d assignments to do; %d objects are gone, %d are back",
        request.run_id, backlog.num_listed, backlog.num_held, len(assignments), num_gone, num_back,
    )  # fmt: skip
    return backlog.num_held, assignments


async def _work_through(assignments: Sequence[Planned], request: RunRequest, beating: Beating) -> Worked:
    """Do the work, here or on the pools."""
    if request.pools.mode == "here":
        return await work_here(assignments, request, beating)
    progress = Progress(beating)
    async with get_client() as client:
        conductor = Conductor(PrefectDispatch(client, request), request.pools, on_turn=progress.show)
        tally = await conductor.conduct(assignments)
    failures = tuple(f"assignment {number}: {reason}" for number, reason in sorted(conductor.failures.items()))
    return Worked(failures=failures, num_attempts=tally.num_attempts)


@storage_task
async def report(request: RunRequest, num_held: int, worked: Worked) -> RunSummary:
    """Write the run's row, and show the run as artifacts."""
    summary = await in_thread(_commit_summary, request, num_held, worked)
    text = await in_thread(run_report, request.lake_uri, request.run_id, worked.failures)
    await acreate_markdown_artifact(text, key="transcribe-run", description=summary.line())
    table = await in_thread(rejections, request.lake_uri, request.run_id, REPORTED_REJECTIONS)
    await acreate_table_artifact(table, key="transcribe-rejections", description="recordings not used as a whole")
    get_run_logger().info(summary.line())
    return summary


def _commit_summary(request: RunRequest, num_held: int, worked: Worked) -> RunSummary:
    """Ask the lake what the run committed, and write its row."""
    is_here = request.pools.mode == "here"
    wall_s = (datetime.now(UTC) - request.started_at).total_seconds()
    summary = summarise(request.lake_uri, request.run_id, request.recipe.recipe_id, num_held, wall_s)
    device = start_engine(request.engine).device if is_here else decoding_devices(request.lake_uri, request.run_id)
    commit_run(
        request.lake_uri,
        summary,
        request.recipe,
        request.sources,
        device,
        request.started_at,
        busy_share=worked.busy_share,
        num_attempts=worked.num_attempts,
        gpu_hour_price=(request.pools.gpu_hour_price or None) if is_here else None,
    )
    return summary
