"""A staged part in, a committed shard out: text, words and times. The transcriber is passed in; loads no model."""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from dgasr.errors import TransientError
from dgasr.lake.parts import commit_shard, finish_shard
from dgasr.lake.rows import Row, ShardRows, recording_row, segment_row
from dgasr.recipe import Recipe
from dgasr.records import Segment, SegmentFeatures, SegmentTranscript, Shard, silent_transcript
from dgasr.stages.assignment import read_assignment
from dgasr.stages.beat import Beating
from dgasr.stages.engine import Engine
from dgasr.stages.outcome import Outcome
from dgasr.stages.run_folder import staged_uri_of
from dgasr.stages.staging import delete_part, read_outcomes, read_segments
from dgasr.store import objects

logger = logging.getLogger(__name__)


class TranscribesSegments(Protocol):
    """What this stage asks of a transcriber; `dgasr.transcriber.Transcriber` is one."""

    def transcribe(self, features: Iterable[SegmentFeatures]) -> Iterator[SegmentTranscript]:
        """Yield one transcript for each segment, in any order."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedShard:
    """Counts of a committed shard; counts of several shards add."""

    shard_id: str
    is_new: bool
    """Whether this call committed it; where another worker or an earlier attempt did, nothing else is counted."""
    num_recordings: int = 0
    num_partial: int = 0
    num_rejected: int = 0
    num_segments: int = 0
    num_words: int = 0
    audio_s: float = 0.0
    """Audio that was decoded, s."""
    speech_s: float = 0.0
    """Of it, what went through the model, s."""
    wall_s: float = 0.0
    """Time it took, s."""

    def line(self) -> str:
        """Say it in one line."""
        if not self.is_new:
            return f"shard {self.shard_id}: committed already"
        return (
            f"shard {self.shard_id}: {self.num_recordings} recordings ({self.num_rejected} rejected, "
            f"{self.num_partial} partial), {self.audio_s / 3600:.2f} h of audio, {self.num_words} words, "
            f"decoded at RTFx {self.audio_s / max(self.wall_s, 1e-9):.0f}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedAssignment:
    """Counts of a decoded assignment."""

    num_shards: int
    num_held: int
    """Of these, committed by somebody else."""
    num_recordings: int
    num_partial: int
    num_rejected: int
    num_segments: int
    num_words: int
    audio_s: float
    """Audio that was decoded, s."""
    speech_s: float
    """Of it, what went through the model, s."""
    wall_s: float
    """Time it took, loading the model included, s."""
    busy_share: float | None
    """Share of the time from the first segment to the last in which the model did not wait for features or commits;
    `None` where there was no speech."""

    def line(self) -> str:
        """Say it in one line."""
        held = f", {self.num_held} shards were committed already" if self.num_held else ""
        busy = "" if self.busy_share is None else f", model busy {self.busy_share:.0%} of the time"
        return (
            f"{self.num_shards} shards: {self.num_recordings} recordings ({self.num_rejected} rejected, "
            f"{self.num_partial} partial), {self.audio_s / 3600:.2f} h of audio in {self.wall_s:.1f} s{busy}{held}"
        )


def decode_assignment(
    assignment_uri: str,
    recipe: Recipe,
    engine: Callable[[], Engine],
    lake_uri: str,
    run_id: str,
    *,
    beating: Beating,
    isolated: frozenset[str] = frozenset(),
) -> DecodedAssignment:
    """Turn the staged features of an assignment into committed shards, with one model for all of them.

    Args:
        assignment_uri: the assignment.
        recipe: how to transcribe.
        engine: loads the model, `partial(start_engine, config)`; also called in a spawned process for a shard that
            must be kept apart, so it has to be picklable then.
        lake_uri: lake to commit to.
        run_id: the run that does it.
        beating: told how far the work is; it counts segments, and names the shards in work.
        isolated: ids of shards that already cost two processes.

    Returns:
        Counts.

    Raises:
        ConfigError: the engine follows another recipe.
        TransientError: the storage failed in a way that may pass, or a shard is not staged.
        IntegrityError: rows contradict each other; nothing is written of their shard.
    """
    started = time.monotonic()
    shards = read_assignment(assignment_uri).shards
    done: list[DecodedShard] = []
    for shard in shards:
        beating.begin(shard.shard_id)
        staged_uri = staged_uri_of(lake_uri, recipe.recipe_id, shard)
        transcriber = engine().transcriber
        done.append(
            decode_shard(shard, recipe, staged_uri, lake_uri, transcriber, run_id, lambda segment: beating.advance())
        )
        beating.end(shard.shard_id)
    return DecodedAssignment(
        num_shards=len(shards),
        num_held=sum(not shard.is_new for shard in done),
        num_recordings=sum(shard.num_recordings for shard in done),
        num_partial=sum(shard.num_partial for shard in done),
        num_rejected=sum(shard.num_rejected for shard in done),
        num_segments=sum(shard.num_segments for shard in done),
        num_words=sum(shard.num_words for shard in done),
        audio_s=sum(shard.audio_s for shard in done),
        speech_s=sum(shard.speech_s for shard in done),
        wall_s=time.monotonic() - started,
        busy_share=None,
    )


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
    started = time.monotonic()
    if finish_shard(objects, lake_uri, recipe.recipe_id, shard.shard_id) is not None:
        delete_part(staged_uri)
        return DecodedShard(shard_id=shard.shard_id, is_new=False)
    outcomes = read_outcomes(staged_uri)
    if outcomes is None:
        raise TransientError(f"{staged_uri}: no whole part lies here. Prepare shard {shard.shard_id} again.")
    transcripts = _transcribe(outcomes, staged_uri, transcriber, recipe.language, on_segment)
    rows = _shard_rows(shard, recipe.recipe_id, run_id, outcomes, transcripts)
    result = commit_shard(objects, lake_uri, rows)
    delete_part(staged_uri)
    if not result.is_mine:
        return DecodedShard(shard_id=shard.shard_id, is_new=False)
    decoded = _counts(rows, time.monotonic() - started)
    logger.info(decoded.line())
    return decoded


def _transcribe(
    outcomes: list[Outcome],
    staged_uri: str,
    transcriber: TranscribesSegments,
    language: str,
    on_segment: Callable[[Segment], None],
) -> dict[str, list[SegmentTranscript]]:
    """Transcribe what is kept, by recording, in order; segments read before a recording was refused are left out."""
    kept = {outcome.recording.recording_id for outcome in outcomes if outcome.status != "rejected"}
    transcripts: dict[str, list[SegmentTranscript]] = defaultdict(list)

    def speech() -> Iterator[SegmentFeatures]:
        for segment, features in read_segments(staged_uri):
            if segment.recording_id in kept and features is None:
                transcripts[segment.recording_id].append(silent_transcript(segment, language))
                on_segment(segment)
            elif segment.recording_id in kept and features is not None:
                yield features

    for transcript in transcriber.transcribe(speech()):
        transcripts[transcript.segment.recording_id].append(transcript)
        on_segment(transcript.segment)
    for members in transcripts.values():
        members.sort(key=lambda transcript: transcript.segment.segment_index)
    return transcripts


def _shard_rows(
    shard: Shard, recipe_id: str, run_id: str, outcomes: list[Outcome], transcripts: dict[str, list[SegmentTranscript]]
) -> ShardRows:
    now = datetime.now(UTC)
    recordings: list[Row] = [
        recording_row(
            outcome.recording,
            shard_id=shard.shard_id,
            run_id=run_id,
            transcribed_at=now,
            status=outcome.status,
            reason=outcome.reason,
            message=outcome.message,
            report=outcome.report,
            transcripts=transcripts.get(outcome.recording.recording_id, []),
        )
        for outcome in outcomes
    ]
    segments = [
        segment_row(transcript, shard_id=shard.shard_id)
        for outcome in outcomes
        for transcript in transcripts.get(outcome.recording.recording_id, [])
    ]
    return ShardRows(
        recipe_id=recipe_id, shard_id=shard.shard_id, run_id=run_id, recordings=recordings, segments=segments
    )


def _counts(rows: ShardRows, wall_s: float) -> DecodedShard:
    statuses = [row["status"] for row in rows.recordings]
    return DecodedShard(
        shard_id=rows.shard_id,
        is_new=True,
        num_recordings=len(statuses),
        num_partial=statuses.count("partial"),
        num_rejected=statuses.count("rejected"),
        num_segments=len(rows.segments),
        num_words=sum(row["num_words"] for row in rows.recordings),
        audio_s=sum(row["decoded_s"] for row in rows.recordings),
        speech_s=sum(row["speech_s"] for row in rows.recordings),
        wall_s=wall_s,
    )
