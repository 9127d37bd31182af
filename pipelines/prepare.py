"""The child flow `prepare`: an assignment's audio in, staged features out. For machines without a GPU."""

from datetime import UTC, datetime
from typing import Any

from prefect import flow

from dgasr.lake.location import lake_uri_of
from dgasr.stages.counts import ChildRun, commit_child_run
from dgasr.stages.heartbeat import HeartbeatWriter
from dgasr.stages.plan import RunFolder
from dgasr.stages.prepare import prepare_assignment
from pipelines.tasks import ended, in_thread, storage_task


@flow(name="prepare", persist_result=False)
async def prepare(assignment: str, lake: str, run_id: str, number: int, attempt: int, num_processes: int) -> Any:
    """Read the audio of an assignment and stage its features. Started by a parent run, not by hand.

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
    child = ChildRun(
        lake_uri=lake_uri_of(lake), parent_run_id=run_id, stage="prepare", number=number, attempt=attempt,
        assignment_uri=assignment, started_at=datetime.now(UTC),
    )  # fmt: skip
    return await ended(stage_features(child, num_processes))


@storage_task
async def stage_features(child: ChildRun, num_processes: int) -> str:
    """Do the work of the child run; what an earlier try staged is not read again."""
    return await in_thread(_stage_features, child, num_processes)


def _stage_features(child: ChildRun, num_processes: int) -> str:
    folder = RunFolder(lake_uri=child.lake_uri, run_id=child.parent_run_id)
    with HeartbeatWriter(folder.heartbeat_uri("prepare", child.number, child.attempt)) as heartbeat:
        recipe = folder.read_recipe()
        counts = prepare_assignment(
            child.assignment_uri, recipe, child.lake_uri, num_processes=num_processes, heartbeat=heartbeat
        )
        commit_child_run(child, recipe, counts, "cpu")
    return counts.line()
