"""The child flows, started by a parent run and not by hand: `prepare`, and `decode` with one model for all its shards.

An assignment's audio becomes staged features, for which no GPU is needed, and these become committed rows.
"""

from datetime import UTC, datetime
from functools import partial
from typing import Any

from prefect import flow

from dgasr.lake.location import lake_uri_of
from dgasr.stages.counts import ChildRun, commit_child_run
from dgasr.stages.decode import decode_assignment
from dgasr.stages.engine import EngineConfig, start_engine
from dgasr.stages.heartbeat import HeartbeatWriter
from dgasr.stages.plan import RunFolder, Stage
from dgasr.stages.prepare import prepare_assignment
from pipelines.tasks import ended, storage_task


@flow(name="prepare", persist_result=False)
async def prepare(assignment: str, lake: str, run_id: str, number: int, attempt: int, num_processes: int) -> Any:
    """Read the audio of an assignment and stage its features.

    Args:
        assignment: URI of the assignment.
        lake: lake that is staged for.
        run_id: the parent run.
        number: the assignment's position among those of its run.
        attempt: which attempt of the parent this is, from 1.
        num_processes: processes that read audio side by side.

    Returns:
        What it did, as the state's message.
    """
    child = _child_run("prepare", assignment, lake, run_id, number, attempt)
    return await ended(stage_features(child, num_processes))


@flow(name="decode", persist_result=False)
async def decode(
    assignment: str,
    lake: str,
    run_id: str,
    number: int,
    attempt: int,
    engine: EngineConfig,
    suspects: list[str],
    rejected: list[str],
    gpu_hour_price: float,
) -> Any:
    """Turn the staged features of an assignment into committed rows.

    Args:
        assignment: URI of the assignment.
        lake: lake to commit to.
        run_id: the parent run.
        number: the assignment's position among those of its run.
        attempt: which attempt of the parent this is, from 1.
        engine: which model transcribes, and how.
        suspects: ids of shards that were in work when decoders died; each is decoded alone, after the others.
        rejected: ids of shards that ended decoders when they were alone; their recordings are rejected.
        gpu_hour_price: what an hour of this machine costs.

    Returns:
        What it did, as the state's message.
    """
    child = _child_run("decode", assignment, lake, run_id, number, attempt)
    return await ended(commit_transcripts(child, engine, frozenset(suspects), frozenset(rejected), gpu_hour_price))


def _child_run(stage: Stage, assignment: str, lake: str, run_id: str, number: int, attempt: int) -> ChildRun:
    return ChildRun(
        lake_uri=lake_uri_of(lake), parent_run_id=run_id, stage=stage, number=number, attempt=attempt,
        assignment_uri=assignment, started_at=datetime.now(UTC),
    )  # fmt: skip


@storage_task
def stage_features(child: ChildRun, num_processes: int) -> str:
    """Do the work of a run of `prepare`; what an earlier try staged is not read again."""
    folder = RunFolder(lake_uri=child.lake_uri, run_id=child.parent_run_id)
    with HeartbeatWriter(folder.heartbeat_uri("prepare", child.number, child.attempt)) as heartbeat:
        recipe = folder.read_recipe()
        counts = prepare_assignment(
            child.assignment_uri, recipe, child.lake_uri, num_processes=num_processes, heartbeat=heartbeat
        )
        commit_child_run(child, recipe, counts, "cpu")
    return counts.line()


@storage_task
def commit_transcripts(
    child: ChildRun, engine: EngineConfig, suspects: frozenset[str], rejected: frozenset[str], gpu_hour_price: float
) -> str:
    """Do the work of a run of `decode`; what an earlier try committed is not decoded again."""
    folder = RunFolder(lake_uri=child.lake_uri, run_id=child.parent_run_id)
    with HeartbeatWriter(folder.heartbeat_uri("decode", child.number, child.attempt)) as heartbeat:
        recipe = folder.read_recipe()
        counts = decode_assignment(
            child.assignment_uri,
            recipe,
            partial(start_engine, engine),
            child.lake_uri,
            child.parent_run_id,
            progress=heartbeat,
            suspects=suspects,
            rejected=rejected,
        )
        # Without speech no model was loaded, and it is not loaded for its device's name only.
        device = start_engine(engine).device if counts.stream_s else "none"
        commit_child_run(child, recipe, counts, device, gpu_hour_price)
    return counts.line()
