"""The stages in one process: what `dgasr transcribe` runs, and the flow `transcribe` where it has no work pools."""

import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from dgasr.errors import TransientError
from dgasr.lake.location import open_lake
from dgasr.lake.upkeep import KEPT, sweep_staging
from dgasr.recipe import Recipe
from dgasr.records import Shard
from dgasr.stages.counts import Counts, RunSummary
from dgasr.stages.decode import ShardStream
from dgasr.stages.engine import Engine
from dgasr.stages.heartbeat import Progress
from dgasr.stages.plan import ShardConfig, new_run_id, plan_shards
from dgasr.stages.prepare import prepare_shard
from dgasr.stages.report import commit_run
from dgasr.stages.selection import Backlog
from dgasr.stages.staging import staged_uri_of
from dgasr.store import probe_store

logger = logging.getLogger(__name__)


def transcribe_backlog(
    backlog: Backlog, lake_uri: str, recipe: Recipe, engine: Callable[[], Engine], progress: Progress
) -> RunSummary:
    """Transcribe a backlog as `transcribe_shards` does, as a run of its own with a row in the lake."""
    run_id, started_at, started = new_run_id(), datetime.now(UTC), time.monotonic()
    counts = transcribe_shards(backlog, lake_uri, recipe, engine, progress, run_id, ShardConfig())
    wall_s = time.monotonic() - started
    if not backlog.num_new + backlog.num_again:
        # The lake need not be there to be asked.
        return RunSummary(run_id=run_id, recipe_id=recipe.recipe_id, num_held=backlog.num_held, wall_s=wall_s)
    summary = commit_run(
        lake_uri, recipe, run_id=run_id, num_held=backlog.num_held, wall_s=wall_s, engine=engine,
        source=" ".join(backlog.selection.names), started_at=started_at, busy_share=counts.busy_share,
    )  # fmt: skip
    logger.info("run %s: %s", run_id, summary.line())
    return summary


def transcribe_shards(
    backlog: Backlog,
    lake_uri: str,
    recipe: Recipe,
    engine: Callable[[], Engine],
    progress: Progress,
    run_id: str,
    config: ShardConfig,
) -> Counts:
    """Transcribe a backlog shard by shard, and note which objects are gone; a shard is read while others are decoded.

    The lake's URI is absolute, and the backlog, which is used up, was looked up there and for this recipe. The engine
    is not called where nobody speaks; progress is told by two threads. ConfigError where nothing lies at the sources;
    IntegrityError where the lake contradicts itself; TransientError where the storage failed in a way that may pass:
    whatever else could be done is committed.
    """
    make_ready(lake_uri)
    failures: list[TransientError] = []

    def prepared() -> Iterator[Shard]:
        for shard in plan_shards(backlog, recipe.recipe_id, config, backlog.take):
            try:
                prepare_shard(shard, recipe, staged_uri_of(lake_uri, recipe.recipe_id, shard), progress)
            except TransientError as error:
                failures.append(error)
            else:
                yield shard

    counts = ShardStream(recipe, engine, lake_uri, run_id, progress).run(prepared())
    num_gone, num_back = backlog.note_presence(run_id)
    logger.info("run %s: %s; %d objects are gone, %d are back", run_id, counts.line(), num_gone, num_back)
    if failures:
        raise TransientError(f"{len(failures)} shards could not be read, the first because: {failures[0]}")
    return counts


def make_ready(lake_uri: str) -> None:
    """See that the lake can be written, and remove what dead runs left in its staging."""
    probe_store(lake_uri)
    sweep_staging(open_lake(lake_uri), datetime.now(UTC) - KEPT)
