"""The stages one after the other in this process: what `dgasr transcribe` runs, and the flow in larger steps."""

import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial

from dgasr.lake.location import open_lake
from dgasr.lake.upkeep import KEPT, sweep_staging
from dgasr.recipe import Recipe
from dgasr.stages.counts import Counts, RunSummary
from dgasr.stages.decode import ShardStream
from dgasr.stages.engine import Engine
from dgasr.stages.heartbeat import Progress
from dgasr.stages.plan import ShardConfig, new_run_id, plan_shards
from dgasr.stages.prepare import prepare_shard
from dgasr.stages.report import commit_run, summarise
from dgasr.stages.selection import Backlog, Selection, find_backlog
from dgasr.stages.staging import staged_uri_of
from dgasr.store.objects import probe_store

logger = logging.getLogger(__name__)


def transcribe_sources(
    sources: Sequence[str],
    lake_uri: str,
    recipe: Recipe,
    engine: Callable[[], Engine],
    progress: Progress,
) -> RunSummary:
    """Transcribe what the lake does not hold for this recipe, shard by shard, as `transcribe_backlog` does."""
    backlog = find_backlog(Selection(sources=tuple(sources)), lake_uri, recipe.recipe_id)
    return transcribe_backlog(backlog, lake_uri, recipe, engine, progress)


def transcribe_backlog(
    backlog: Backlog,
    lake_uri: str,
    recipe: Recipe,
    engine: Callable[[], Engine],
    progress: Progress,
) -> RunSummary:
    """Transcribe a backlog shard by shard, and note the run and which objects are gone.

    Args:
        backlog: what is to be transcribed; used up by this.
        lake_uri: lake to commit to, absolute; the one that the backlog was looked up in.
        recipe: how to transcribe; the one that the backlog was looked up for.
        engine: loads a model that follows the recipe; not called where nobody speaks.
        progress: told how far it is.

    Raises:
        TransientError: the storage failed in a way that may pass; what is committed stays.
        IntegrityError: the lake contradicts itself.
    """
    run_id, started_at, started = new_run_id(), datetime.now(UTC), time.monotonic()
    probe_store(lake_uri)
    sweep_staging(open_lake(lake_uri), started_at - KEPT)
    staged_uris = partial(staged_uri_of, lake_uri, recipe.recipe_id)
    stream = ShardStream(recipe, engine, lake_uri, staged_uris, run_id, progress)
    counts = Counts()
    for shard in plan_shards(backlog, recipe.recipe_id, ShardConfig(), backlog.take):
        prepare_shard(shard, recipe, staged_uris(shard), progress)
        counts += stream.run([shard])
    backlog.note_presence(run_id)
    wall_s = time.monotonic() - started
    if not backlog.num_new + backlog.num_again:
        # The lake need not be there to be asked.
        return RunSummary(run_id=run_id, recipe_id=recipe.recipe_id, num_held=backlog.num_held, wall_s=wall_s)
    summary = summarise(lake_uri, run_id, recipe.recipe_id, backlog.num_held, wall_s)
    device = engine().device if counts.stream_s else "none"
    commit_run(lake_uri, summary, recipe, backlog.selection.names, device, started_at)
    logger.info("run %s: %s", run_id, summary.line())
    return summary
