"""One run from its plan to its report, whoever asked for it: the daily flow, or a backfill."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

from prefect import get_run_logger
from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact
from prefect.client.orchestration import get_client

from dgasr.errors import ConfigError, DgasrError, IntegrityError, TransientError
from dgasr.stages.assignment import AssignmentConfig, write_assignments
from dgasr.stages.backlog import find_backlog
from dgasr.stages.beat import Beating
from dgasr.stages.engine import start_engine
from dgasr.stages.plan import plan_shards
from dgasr.stages.report import RunSummary, commit_run, decoding_devices, summarise
from dgasr.stages.run_report import rejections, run_report
from dgasr.stages.staging import sweep_staging
from dgasr.store.objects import probe_store
from pipelines.children import in_thread
from pipelines.conductor import Conductor
from pipelines.course import Planned, Worked
from pipelines.deployments import PrefectDispatch
from pipelines.here import work_here
from pipelines.progress import Progress
from pipelines.request import RunRequest
from pipelines.retries import storage_task

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
