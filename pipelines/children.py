"""The child flows, started by a parent run and not by hand: `prepare`, and `decode` with one model for all its shards.

An assignment's audio becomes staged features, for which no GPU is needed, and these become committed rows.
"""

from datetime import UTC, datetime
from functools import partial
from typing import Any

from prefect import flow

from dgasr.lake.location import lake_uri_of
from dgasr.stages.counts import commit_child_run
from dgasr.stages.decode import decode_assignment
from dgasr.stages.engine import EngineConfig, start_engine
from dgasr.stages.heartbeat import HeartbeatWriter
from dgasr.stages.plan import ChildRun, RunFolder
from dgasr.stages.prepare import prepare_assignment
from pipelines.tasks import ended, storage_task


@flow(name="prepare", persist_result=False)
async def prepare(child: ChildRun, lake: str, run_id: str, num_processes: int) -> Any:
    """Read the audio of an assignment and stage its features.

    Args:
        child: the assignment, and which attempt of the parent this is.
        lake: lake that is staged for.
        run_id: the parent run.
        num_processes: processes that read audio side by side.

    Returns:
        What it did, as the state's message.
    """
    folder = RunFolder(lake_uri=lake_uri_of(lake), run_id=run_id)
    return await ended(stage_features(child, folder, num_processes))


@flow(name="decode", persist_result=False)
async def decode(child: ChildRun, lake: str, run_id: str, engine: EngineConfig, gpu_hour_price: float) -> Any:
    """Turn the staged features of an assignment into committed rows.

    Args:
        child: the assignment, which attempt of the parent this is, and which shards ended decoders before.
        lake: lake to commit to.
        run_id: the parent run.
        engine: which model transcribes, and how.
        gpu_hour_price: what an hour of this machine costs.

    Returns:
        What it did, as the state's message.
    """
    folder = RunFolder(lake_uri=lake_uri_of(lake), run_id=run_id)
    return await ended(commit_transcripts(child, folder, engine, gpu_hour_price))


@storage_task
def stage_features(child: ChildRun, folder: RunFolder, num_processes: int) -> str:
    """Do the work of a run of `prepare`; what an earlier try staged is not read again."""
    started_at = datetime.now(UTC)
    with HeartbeatWriter(folder.heartbeat_uri(child)) as heartbeat:
        recipe = folder.read_recipe()
        counts = prepare_assignment(
            child.assignment_uri, recipe, folder.lake_uri, num_processes=num_processes, heartbeat=heartbeat
        )
        commit_child_run(folder, child, recipe, counts, started_at, device="cpu")
    return counts.line()


@storage_task
def commit_transcripts(child: ChildRun, folder: RunFolder, engine: EngineConfig, gpu_hour_price: float) -> str:
    """Do the work of a run of `decode`; what an earlier try committed is not decoded again."""
    started_at = datetime.now(UTC)
    with HeartbeatWriter(folder.heartbeat_uri(child)) as heartbeat:
        recipe, start = folder.read_recipe(), partial(start_engine, engine)
        counts = decode_assignment(
            child.assignment_uri, recipe, start, folder.lake_uri, folder.run_id, progress=heartbeat,
            suspects=frozenset(child.suspects), rejected=frozenset(child.rejected),
        )  # fmt: skip
        # Without speech no model was loaded, and it is not loaded for its device's name only.
        device = start().device if counts.stream_s else "none"
        commit_child_run(
            folder, child, recipe, counts, started_at, device=device, gpu_hour_price=gpu_hour_price or None
        )
    return counts.line()
