"""A shard's audio in, its staged part out: segments cut at silence with their log-mel features. Needs no model.

What is wrong with a recording becomes its outcome; only storage that may work next time stops the shard.
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from dgasr.audio import open_audio
from dgasr.errors import RecordingError, TruncatedError
from dgasr.frontend import cut_recording
from dgasr.lake.parts import finish_shard
from dgasr.recipe import Recipe
from dgasr.records import AudioReport, Recording, Shard, seconds
from dgasr.stages.assignment import read_assignment
from dgasr.stages.beat import Beating
from dgasr.stages.outcome import Outcome
from dgasr.stages.run_folder import staged_uri_of
from dgasr.stages.staging import StagedPart, read_outcomes
from dgasr.store import objects
from dgasr.store.objects import open_object

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedShard:
    """Counts of a prepared shard; counts of several shards add."""

    shard_id: str
    num_recordings: int
    num_rejected: int
    num_segments: int
    """Segments of the recordings that are kept."""
    audio_s: float
    """Audio that was decoded, s."""
    wall_s: float
    """Time it took, s."""

    def line(self) -> str:
        """Say it in one line."""
        return (
            f"shard {self.shard_id}: {self.num_recordings} recordings read ({self.num_rejected} rejected), "
            f"{self.num_segments} segments, {self.audio_s / 3600:.2f} h of audio in {self.wall_s:.1f} s"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedAssignment:
    """Counts of a prepared assignment."""

    num_shards: int
    num_held: int
    """Of these, committed before, so that nothing was read for them."""
    num_recordings: int
    num_rejected: int
    num_segments: int
    audio_s: float
    """Audio that was decoded, s."""
    wall_s: float
    """Time it took, s."""

    def line(self) -> str:
        """Say it in one line."""
        held = f", {self.num_held} shards were committed already" if self.num_held else ""
        return (
            f"{self.num_shards} shards: {self.num_recordings} recordings read ({self.num_rejected} rejected), "
            f"{self.audio_s / 3600:.2f} h of audio in {self.wall_s:.1f} s{held}"
        )


def prepare_assignment(
    assignment_uri: str, recipe: Recipe, lake_uri: str, *, num_processes: int, beating: Beating
) -> PreparedAssignment:
    """Stage the features of an assignment's shards, but of those that are committed.

    Args:
        assignment_uri: the assignment.
        recipe: how to read and cut.
        lake_uri: lake that is staged for.
        num_processes: processes that read audio at once.
        beating: told how far the work is; it counts what moves on, and names the shards in work.

    Returns:
        Counts.

    Raises:
        TransientError: the storage failed in a way that may pass.
    """
    started = time.monotonic()
    shards = read_assignment(assignment_uri).shards
    todo = [s for s in shards if finish_shard(objects, lake_uri, recipe.recipe_id, s.shard_id) is None]
    done: list[PreparedShard] = []
    for shard in todo:
        beating.begin(shard.shard_id)
        staged_uri = staged_uri_of(lake_uri, recipe.recipe_id, shard)
        done.append(prepare_shard(shard, recipe, staged_uri, lambda outcome: beating.advance()))
        beating.end(shard.shard_id)
        beating.say(f"{len(done)} of {len(todo)} shards read")
    return PreparedAssignment(
        num_shards=len(shards),
        num_held=len(shards) - len(todo),
        num_recordings=sum(shard.num_recordings for shard in done),
        num_rejected=sum(shard.num_rejected for shard in done),
        num_segments=sum(shard.num_segments for shard in done),
        audio_s=sum(shard.audio_s for shard in done),
        wall_s=time.monotonic() - started,
    )


def prepare_shard(
    shard: Shard, recipe: Recipe, staged_uri: str, on_recording: Callable[[Outcome], None] = lambda outcome: None
) -> PreparedShard:
    """Write the staged part of a shard, unless a whole one lies there.

    Args:
        shard: what to read.
        recipe: how to read and cut it.
        staged_uri: folder for the part.
        on_recording: told of every recording once it is read; for progress.

    Returns:
        Counts.

    Raises:
        TransientError: the storage failed in a way that may pass.
    """
    started = time.monotonic()
    outcomes = read_outcomes(staged_uri)
    if outcomes is None:
        outcomes = []
        with StagedPart(staged_uri) as part:
            for recording in shard.recordings:
                outcomes.append(_prepare_recording(recording, recipe, part))
                part.finish(outcomes[-1])
                on_recording(outcomes[-1])
    return _counts(shard.shard_id, outcomes, time.monotonic() - started)


def _prepare_recording(recording: Recording, recipe: Recipe, part: StagedPart) -> Outcome:
    truncations: list[TruncatedError] = []
    try:
        num_segments, report = _stage_segments(recording, recipe, part, truncations)
    except RecordingError as error:
        logger.debug("rejected: %s", error)
        return Outcome(recording=recording, status="rejected", reason=error.reason, message=str(error))
    if truncations:
        return Outcome(
            recording=recording,
            status="partial",
            reason=truncations[0].reason,
            message=str(truncations[0]),
            num_segments=num_segments,
            report=report,
        )
    return Outcome(recording=recording, status="ok", num_segments=num_segments, report=report)


def _stage_segments(
    recording: Recording, recipe: Recipe, part: StagedPart, truncations: list[TruncatedError]
) -> tuple[int, AudioReport]:
    """Cut a recording and stage its segments; how many there are, and what the container said."""
    num_segments = 0
    with open_object(recording) as file:
        stream = open_audio(file, recording.uri, recipe.audio)
        blocks = _until_truncation(stream.blocks(), truncations)
        for segment, features in cut_recording(blocks, recording.recording_id, recipe):
            part.add(segment, features)
            num_segments += 1
        return num_segments, stream.report()


def _until_truncation(blocks: Iterator[np.ndarray], truncations: list[TruncatedError]) -> Iterator[np.ndarray]:
    """Pass blocks on and end where the audio breaks off, so that what came before is still cut and kept."""
    try:
        yield from blocks
    except TruncatedError as error:
        truncations.append(error)


def _counts(shard_id: str, outcomes: list[Outcome], wall_s: float) -> PreparedShard:
    return PreparedShard(
        shard_id=shard_id,
        num_recordings=len(outcomes),
        num_rejected=sum(outcome.status == "rejected" for outcome in outcomes),
        num_segments=sum(outcome.num_segments for outcome in outcomes),
        audio_s=seconds(sum(outcome.report.decoded_samples for outcome in outcomes if outcome.report)),
        wall_s=wall_s,
    )
