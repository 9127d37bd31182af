"""Staged parts in, committed shards out: text, words and times, with one model for a whole assignment."""

import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

from dgasr.errors import ConfigError
from dgasr.lake.commit import committed_shards
from dgasr.recipe import Recipe
from dgasr.records import Segment, Shard
from dgasr.stages.assignment import read_assignment
from dgasr.stages.beat import Beating
from dgasr.stages.counts import DecodedAssignment, DecodedShard, add_decoded
from dgasr.stages.culprits import settle
from dgasr.stages.isolation import Processes, note_progress
from dgasr.stages.run_folder import staged_uri_of
from dgasr.stages.staging import read_segments
from dgasr.stages.stream import ShardStream, TranscribesSegments
from dgasr.stages.watching import BeatingWatcher, SegmentWatcher


class Decodes(Protocol):
    """What this asks of an engine; `dgasr.stages.engine.Engine` is one."""

    @property
    def recipe(self) -> Recipe:
        """What it follows."""
        ...

    @property
    def transcriber(self) -> TranscribesSegments:
        """Its transcriber."""
        ...


StartEngine = Callable[[], Decodes]
"""Loads the model, `partial(start_engine, config)`. Also called in spawned processes, so it must be picklable."""


def decode_assignment(
    assignment_uri: str,
    recipe: Recipe,
    engine: StartEngine,
    lake_uri: str,
    run_id: str,
    *,
    beating: Beating,
    isolated: frozenset[str] = frozenset(),
) -> DecodedAssignment:
    """Turn the staged features of an assignment into committed shards.

    Args:
        assignment_uri: the assignment.
        recipe: how to transcribe.
        engine: loads the model; called once, and not at all where everything is committed already.
        lake_uri: lake to commit to.
        run_id: the run that does it.
        beating: told how far the work is; it counts segments, and names the shards in work.
        isolated: ids of shards that already cost two processes. They are decoded in spawned ones, before this process
            loads its model, and recordings that end their process are rejected.

    Returns:
        Counts.

    Raises:
        ConfigError: the engine follows another recipe, or processes die without having transcribed anything.
        TransientError: the storage failed in a way that may pass, or a shard is not staged; whatever else could be
            done is committed.
        IntegrityError: rows contradict each other; nothing is written of their shard.
    """
    started = time.monotonic()
    shards = read_assignment(assignment_uri).shards
    watcher = BeatingWatcher(beating, len(shards))
    done: list[DecodedShard] = []
    with Processes(1, beating.advance) as alone:
        for shard in shards:
            if shard.shard_id in isolated:
                done.append(_settle(shard, recipe, engine, lake_uri, run_id, alone))
                watcher.end_shard(done[-1])
    staged_uris = partial(staged_uri_of, lake_uri, recipe.recipe_id)
    stream = ShardStream(recipe, lambda: _transcriber(engine, recipe), lake_uri, staged_uris, run_id, watcher)
    done += stream.run(shard for shard in shards if shard.shard_id not in isolated)
    return add_decoded(done, stream.busy_share, time.monotonic() - started)


def decode_shard(
    shard: Shard,
    recipe: Recipe,
    staged_uri: str,
    lake_uri: str,
    transcriber: TranscribesSegments,
    run_id: str,
    on_segment: Callable[[Segment], None] = lambda segment: None,
) -> DecodedShard:
    """Transcribe a shard's segments, commit its rows and remove its staged part.

    Args:
        shard: the shard.
        recipe: the recipe that the transcriber follows.
        staged_uri: where `prepare_shard` put the part.
        lake_uri: lake to commit to.
        transcriber: turns features into transcripts.
        run_id: the run that does it.
        on_segment: told of every segment once its text is known; for progress.

    Returns:
        Counts.

    Raises:
        TransientError: the storage failed in a way that may pass, or the part is gone.
        IntegrityError: the rows contradict each other; nothing is written.
    """
    watcher = SegmentWatcher(on_segment)
    stream = ShardStream(recipe, lambda: transcriber, lake_uri, lambda shard: staged_uri, run_id, watcher)
    (decoded,) = stream.run([shard])
    return decoded


def _transcriber(engine: StartEngine, recipe: Recipe) -> TranscribesSegments:
    """Load the model, and make sure that it is the one that was asked for."""
    started = engine()
    if started.recipe != recipe:
        raise ConfigError(
            f"The model on this machine follows recipe {started.recipe.recipe_id}, the run {recipe.recipe_id}. "
            "Give all workers the same version of dgasr and the same model and adapter files."
        )
    return started.transcriber


def _settle(
    shard: Shard, recipe: Recipe, engine: StartEngine, lake_uri: str, run_id: str, alone: Processes
) -> DecodedShard:
    """Decode a shard that ended processes, in one of its own."""
    if committed_shards(lake_uri, recipe.recipe_id, [shard]):
        return DecodedShard(shard_id=shard.shard_id, is_new=False)
    staged_uri = staged_uri_of(lake_uri, recipe.recipe_id, shard)
    return settle(
        shard,
        lambda crashing: alone.run(_decode_apart, shard, recipe, engine, lake_uri, run_id, crashing),
        lambda recordings: (
            alone.run(_try_recordings, [r.recording_id for r in recordings], recipe, engine, staged_uri) is not None
        ),
    )


def _decode_apart(
    shard: Shard, recipe: Recipe, engine: StartEngine, lake_uri: str, run_id: str, crashing: frozenset[str]
) -> DecodedShard:
    """Decode a shard in a spawned process."""
    watcher = SegmentWatcher(lambda segment: note_progress())
    staged_uris = partial(staged_uri_of, lake_uri, recipe.recipe_id)
    stream = ShardStream(recipe, lambda: _transcriber(engine, recipe), lake_uri, staged_uris, run_id, watcher, crashing)
    (decoded,) = stream.run([shard])
    return decoded


def _try_recordings(recording_ids: list[str], recipe: Recipe, engine: StartEngine, staged_uri: str) -> int:
    """Transcribe recordings of a staged part and keep nothing; how many segments they had."""
    speech = (
        features
        for segment, features in read_segments(staged_uri)
        if features is not None and segment.recording_id in recording_ids
    )
    num_segments = 0
    for _ in _transcriber(engine, recipe).transcribe(speech):
        num_segments += 1
        note_progress()
    return num_segments
