"""The flow `transcribe`: an archive's recordings in, the lake's rows out. The stages do the work; Prefect drives them.

Only URIs and small values pass between tasks. A task handles an assignment of many shards, never a single file.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from dgasr.errors import ConfigError
from dgasr.lake.ledger import committed_recordings
from dgasr.lake.location import lake_uri_of
from dgasr.stages.assignment import AssignmentConfig, read_assignment, write_assignments
from dgasr.stages.decode import decode_shard
from dgasr.stages.discover import Backlog
from dgasr.stages.embedded import new_run_id
from dgasr.stages.engine import start_engine
from dgasr.stages.engine_config import EngineConfig
from dgasr.stages.plan import ShardConfig, plan_shards
from dgasr.stages.prepare import prepare_shard
from dgasr.stages.report import RunSummary, commit_run, rejections, summarise
from dgasr.stages.run_folder import staged_uri_of
from dgasr.stages.staging import sweep_staging
from dgasr.store import objects
from pipelines.retries import is_transient

SHARDS_PER_ASSIGNMENT = 8
"""Shards that one pair of tasks works through: about eight hours of audio, half a gigabyte of staged features."""

REPORTED_REJECTIONS = 100
"""Rows of the artifact that lists what could not be used; the lake's view `rejections` holds all."""

storage_task = task(
    retries=3, retry_delay_seconds=[2, 10, 60], retry_condition_fn=is_transient, persist_result=False,
    cache_policy=NO_CACHE,
)  # fmt: skip
"""Makes a task that is tried again when storage fails in a way that may pass; its small result stays in memory."""


@flow(name="transcribe", persist_result=False)
async def transcribe(source: str | list[str], lake: str, engine: EngineConfig, shard: ShardConfig) -> Any:
    """Transcribe every recording under `source` that the lake does not hold for this recipe.

    Args:
        source: file, folder or `s3://bucket/prefix`, or several of them.
        lake: folder or `s3://bucket/prefix` of the lake.
        engine: which model transcribes, and how.
        shard: how much is committed at once.

    Returns:
        What the run did, the fields of `RunSummary`.
    """
    sources, lake_uri = [source] if isinstance(source, str) else source, lake_uri_of(lake)
    run_id, started_at = new_run_id(), datetime.now(UTC)
    num_held, assignments = await plan(sources, lake_uri, engine, shard, run_id)
    await _work_through(assignments, lake_uri, engine, run_id)
    summary = await report(lake_uri, engine, sources, run_id, num_held, started_at)
    return Completed(message=summary.line(), data=asdict(summary))


async def _work_through(assignments: Sequence[str], lake_uri: str, engine: EngineConfig, run_id: str) -> None:
    """Decode one assignment while the next one's audio is read."""
    following = [asyncio.create_task(prepare(uri, lake_uri, engine)) for uri in assignments[:1]]
    for number, uri in enumerate(assignments):
        await following.pop()
        if number + 1 < len(assignments):
            following.append(asyncio.create_task(prepare(assignments[number + 1], lake_uri, engine)))
        await decode(uri, lake_uri, engine, run_id)


@storage_task
async def plan(
    sources: list[str], lake_uri: str, engine: EngineConfig, shard: ShardConfig, run_id: str
) -> tuple[int, list[str]]:
    """Write down what is to be done; how many recordings the lake holds already, and the assignments' URIs."""
    recipe_id = (await asyncio.to_thread(start_engine, engine)).recipe.recipe_id
    await asyncio.to_thread(sweep_staging, lake_uri, datetime.now(UTC))
    backlog = Backlog(sources, await asyncio.to_thread(committed_recordings, lake_uri, recipe_id))
    shards = plan_shards(backlog, recipe_id, shard)
    folder_uri = f"{lake_uri}/staging/{recipe_id}/assignments/{run_id}"
    config = AssignmentConfig(max_shards=SHARDS_PER_ASSIGNMENT)
    uris = await asyncio.to_thread(lambda: [uri for uri, _ in write_assignments(shards, folder_uri, config)])
    if not uris and not backlog.num_held:
        raise ConfigError(f"{', '.join(sources)}: nothing lies there. Give files, a folder or an s3:// prefix.")
    get_run_logger().info("%d recordings in the lake already, %d assignments to do", backlog.num_held, len(uris))
    return backlog.num_held, uris


@storage_task
async def prepare(assignment_uri: str, lake_uri: str, engine: EngineConfig) -> None:
    """Read the audio of an assignment and stage its features."""
    recipe = start_engine(engine).recipe
    for shard in (await asyncio.to_thread(read_assignment, assignment_uri)).shards:
        staged_uri = staged_uri_of(lake_uri, recipe.recipe_id, shard)
        prepared = await asyncio.to_thread(prepare_shard, shard, recipe, staged_uri)
        get_run_logger().info(prepared.line())


@storage_task
async def decode(assignment_uri: str, lake_uri: str, engine: EngineConfig, run_id: str) -> None:
    """Turn the staged features of an assignment into text and commit it, shard by shard."""
    started = start_engine(engine)
    for shard in (await asyncio.to_thread(read_assignment, assignment_uri)).shards:
        staged_uri = staged_uri_of(lake_uri, started.recipe.recipe_id, shard)
        decoded = await asyncio.to_thread(
            decode_shard, shard, started.recipe, staged_uri, lake_uri, started.transcriber, run_id
        )
        get_run_logger().info(decoded.line())
    await asyncio.to_thread(objects.delete, assignment_uri)


@storage_task
async def report(
    lake_uri: str, engine: EngineConfig, sources: list[str], run_id: str, num_held: int, started_at: datetime
) -> RunSummary:
    """Write the run's row, and show it as artifacts."""
    started = start_engine(engine)
    wall_s = (datetime.now(UTC) - started_at).total_seconds()
    summary = await asyncio.to_thread(summarise, lake_uri, run_id, started.recipe.recipe_id, num_held, wall_s)
    await asyncio.to_thread(commit_run, lake_uri, summary, started.recipe, sources, started.device, started_at)
    await acreate_markdown_artifact(summary.markdown(), key="transcribe-run", description=summary.line())
    table = await asyncio.to_thread(rejections, lake_uri, run_id, REPORTED_REJECTIONS)
    await acreate_table_artifact(table, key="transcribe-rejections", description="recordings not used as a whole")
    get_run_logger().info(summary.line())
    return summary
