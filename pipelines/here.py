"""A run whose work is done in the parent's own process: for one machine, a demo, or a test. No child runs, no beats."""

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from functools import partial

from prefect import get_run_logger

from dgasr.errors import TransientError
from dgasr.stages.assignment import read_assignment
from dgasr.stages.beat import Beating
from dgasr.stages.decode import DecodedAssignment, decode_assignment
from dgasr.stages.engine import start_engine
from dgasr.stages.prepare import prepare_shard
from dgasr.stages.run_folder import staged_uri_of
from pipelines.children import in_thread
from pipelines.course import Planned, Worked
from pipelines.request import RunRequest
from pipelines.retries import storage_task


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
