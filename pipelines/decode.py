"""The child flow `decode`: an assignment's staged features in, committed rows out, with one model for all of it."""

from datetime import UTC, datetime
from functools import partial
from typing import Any

from prefect import flow

from dgasr.lake.location import lake_uri_of
from dgasr.stages.counts import ChildRun, commit_decode_run
from dgasr.stages.decode import decode_assignment
from dgasr.stages.engine import EngineConfig, start_engine
from dgasr.stages.heartbeat import Beating
from dgasr.stages.plan import RunFolder
from pipelines.children import ended, in_thread, storage_task


@flow(name="decode", persist_result=False)
async def decode(
    assignment: str,
    lake: str,
    run_id: str,
    number: int,
    attempt: int,
    engine: EngineConfig,
    isolated: list[str],
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
        isolated: ids of shards that cost decoders before and are decoded in a process of their own.
        gpu_hour_price: what an hour of this machine costs.

    Returns:
        What it did, as the state's message.
    """
    child = ChildRun(
        lake_uri=lake_uri_of(lake), parent_run_id=run_id, stage="decode", number=number, attempt=attempt,
        assignment_uri=assignment, started_at=datetime.now(UTC),
    )  # fmt: skip
    return await ended(commit_transcripts(child, engine, frozenset(isolated), gpu_hour_price))


@storage_task
async def commit_transcripts(
    child: ChildRun, engine: EngineConfig, isolated: frozenset[str], gpu_hour_price: float
) -> str:
    """Do the work of the child run; what an earlier try committed is not decoded again."""
    return await in_thread(_commit_transcripts, child, engine, isolated, gpu_hour_price)


def _commit_transcripts(child: ChildRun, engine: EngineConfig, isolated: frozenset[str], gpu_hour_price: float) -> str:
    folder = RunFolder(lake_uri=child.lake_uri, run_id=child.parent_run_id)
    with Beating(folder.beat_uri("decode", child.number, child.attempt)) as beating:
        recipe = folder.read_recipe()
        decoded = decode_assignment(
            child.assignment_uri,
            recipe,
            partial(start_engine, engine),
            child.lake_uri,
            child.parent_run_id,
            beating=beating,
            isolated=isolated,
        )
        is_held = decoded.num_held == decoded.num_shards
        device = "none" if is_held else start_engine(engine).device  # loaded by now, and not loaded for its name only
        commit_decode_run(child, recipe, decoded, device, gpu_hour_price)
    return decoded.line()
