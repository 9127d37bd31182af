"""The child flow `decode`: an assignment's staged features in, committed rows out, with one model for all of it."""

from datetime import UTC, datetime
from functools import partial
from typing import Any

from prefect import flow

from dgasr.lake.location import lake_uri_of
from dgasr.stages.counts import ChildRun, commit_child_run
from dgasr.stages.decode import decode_assignment
from dgasr.stages.engine import EngineConfig, start_engine
from dgasr.stages.heartbeat import HeartbeatWriter
from dgasr.stages.plan import RunFolder
from pipelines.tasks import ended, in_thread, storage_task


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
    """Turn the staged features of an assignment into committed rows. Started by a parent run, not by hand.

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
    child = ChildRun(
        lake_uri=lake_uri_of(lake), parent_run_id=run_id, stage="decode", number=number, attempt=attempt,
        assignment_uri=assignment, started_at=datetime.now(UTC),
    )  # fmt: skip
    return await ended(commit_transcripts(child, engine, frozenset(suspects), frozenset(rejected), gpu_hour_price))


@storage_task
async def commit_transcripts(
    child: ChildRun, engine: EngineConfig, suspects: frozenset[str], rejected: frozenset[str], gpu_hour_price: float
) -> str:
    """Do the work of the child run; what an earlier try committed is not decoded again."""
    return await in_thread(_commit_transcripts, child, engine, suspects, rejected, gpu_hour_price)


def _commit_transcripts(
    child: ChildRun, engine: EngineConfig, suspects: frozenset[str], rejected: frozenset[str], gpu_hour_price: float
) -> str:
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
