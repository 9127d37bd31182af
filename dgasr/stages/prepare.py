"""Audio in, staged parts out: segments cut at silence with their log-mel features. Needs no model.

What is wrong with a recording becomes its outcome, even if it ends the process that reads it; only storage that may
work next time stops the work.
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from dgasr.audio import open_audio
from dgasr.audio.waveform import WaveformDigest
from dgasr.errors import DgasrError, Reason, RecordingError, TruncatedError, printable
from dgasr.frontend import cut_channels, until_truncation
from dgasr.lake.ledger import committed_shards
from dgasr.recipe import Recipe
from dgasr.records import Recording, Segment, SegmentFeatures, Shard, seconds
from dgasr.stages.counts import Counts
from dgasr.stages.heartbeat import HeartbeatWriter, Progress
from dgasr.stages.isolation import Processes, note_progress, settle
from dgasr.stages.plan import read_assignment
from dgasr.stages.staging import Outcome, StagedPart, read_outcomes, staged_uri_of
from dgasr.store import open_object

logger = logging.getLogger(__name__)

Stage = Callable[[Segment, SegmentFeatures | None], None]
"""Takes a segment that has been read."""


def prepare_assignment(
    assignment_uri: str, recipe: Recipe, lake_uri: str, *, num_processes: int, heartbeat: HeartbeatWriter
) -> Counts:
    """Stage the features of an assignment's shards, but of those that are committed, in so many processes at once.

    The heartbeat is told how far the work is; it counts segments, and names the shards in work. ConfigError where
    processes die without having read anything, TransientError where the storage failed in a way that may pass.
    """
    started = time.monotonic()
    shards = read_assignment(assignment_uri).shards
    committed = committed_shards(lake_uri, recipe.recipe_id, shards)
    todo = [shard for shard in shards if shard.shard_id not in committed]
    num_held = len(shards) - len(todo)
    done = [Counts(num_shards=num_held, num_shards_held=num_held)]

    def finish(shard: Shard, counts: Counts) -> None:
        done.append(counts)
        heartbeat.end_shard(shard.shard_id, counts)
        logger.info("shard %s: %s", shard.shard_id, counts.line())

    def calls() -> Iterator[tuple[Shard, Recipe, str]]:
        for shard in todo:
            heartbeat.begin_reading(shard)
            yield shard, recipe, staged_uri_of(lake_uri, recipe.recipe_id, shard)

    suspects: list[Shard] = []
    with Processes(min(num_processes, max(1, len(todo))), heartbeat.advance) as processes:
        for (shard, *_), counts in processes.run_each(_prepare_apart, calls()):
            if counts is None:
                suspects.append(shard)
            else:
                finish(shard, counts)
    with Processes(1, heartbeat.advance) as alone:
        for shard in suspects:
            finish(shard, _settle(shard, recipe, staged_uri_of(lake_uri, recipe.recipe_id, shard), alone))
    return replace(sum(done, Counts()), wall_s=time.monotonic() - started)


def prepare_shard(
    shard: Shard,
    recipe: Recipe,
    staged_uri: str,
    progress: Progress = Progress(),  # noqa: B008
    crashing: frozenset[str] = frozenset(),
) -> Counts:
    """Write the staged part of a shard into a folder, unless a whole one lies there.

    Recordings whose ids are among `crashing` end the process that reads them, and are rejected unread. TransientError
    where the storage failed in a way that may pass.
    """
    started = time.monotonic()
    outcomes = read_outcomes(staged_uri)
    if outcomes is None:
        outcomes = []
        progress.begin_reading(shard)
        with StagedPart(staged_uri) as part:

            def stage(segment: Segment, features: SegmentFeatures | None) -> None:
                part.add(segment, features)
                progress.segment_read()

            for recording in shard.recordings:
                is_read = recording.recording_id not in crashing
                outcomes.append(_read(recording, recipe, stage) if is_read else _crashed(recording))
                part.finish(outcomes[-1])
                progress.recording_read()
    return _counts(outcomes, time.monotonic() - started)


class _Steps(Progress):
    """Counts the steps of a spawned process for its parent."""

    def segment_read(self) -> None:
        note_progress()


def _prepare_apart(shard: Shard, recipe: Recipe, staged_uri: str, crashing: frozenset[str] = frozenset()) -> Counts:
    """Prepare a shard in a spawned process."""
    return prepare_shard(shard, recipe, staged_uri, _Steps(), crashing)


def _settle(shard: Shard, recipe: Recipe, staged_uri: str, alone: Processes) -> Counts:
    """Prepare a shard that may have ended a process, in one of its own."""
    return settle(
        shard,
        lambda crashing: alone.run(_prepare_apart, shard, recipe, staged_uri, crashing),
        lambda recording: alone.run(_try_recording, recording, recipe) is not None,
    )


def _try_recording(recording: Recording | None, recipe: Recipe) -> bool:
    """Read a recording, if there is one, and keep nothing of it."""
    if recording is not None:
        _read(recording, recipe, lambda segment, features: note_progress())
    return True


def _read(recording: Recording, recipe: Recipe, stage: Stage) -> Outcome:
    """Read a recording, stage its segments and say what became of it."""
    started = time.monotonic()
    truncations: list[TruncatedError] = []
    digest = WaveformDigest()
    num_segments = 0
    try:
        with open_object(recording) as file:
            stream = open_audio(file, recording.uri, recipe.audio)
            channels = (
                replace(channel, pieces=digest.passing(channel.pieces))
                for channel in until_truncation(stream.channels(), truncations)
            )
            for segment, features in cut_channels(channels, recording.recording_id, recipe):
                stage(segment, features)
                num_segments += 1
            report = stream.report()
    except RecordingError as error:
        logger.debug("rejected: %s", printable(str(error)))
        return _rejected(recording, error.reason, str(error), time.monotonic() - started)
    except (DgasrError, MemoryError):
        raise
    except Exception as error:
        logger.exception("%s: reading it fails in a way that nobody foresaw", printable(recording.uri))
        message = (
            f"{recording.uri}: reading it fails in a way that nobody foresaw ({error!r}). "
            "Convert it to FLAC and transcribe that, and report the fault with the worker's log."
        )
        return _rejected(recording, Reason.CRASHES_DECODER, message, time.monotonic() - started)
    return Outcome(
        recording=recording,
        status="partial" if truncations else "ok",
        reason=truncations[0].reason if truncations else None,
        message=str(truncations[0]) if truncations else None,
        num_segments=num_segments,
        report=report,
        audio_digest=digest.hexdigest(),
        read_s=time.monotonic() - started,
    )


def _crashed(recording: Recording) -> Outcome:
    message = (
        f"{recording.uri}: ended or held up the process that read it, each time it was tried alone. "
        "Convert it to FLAC and transcribe that, or remove it."
    )
    return _rejected(recording, Reason.CRASHES_DECODER, message, None)


def _rejected(recording: Recording, reason: Reason, message: str, read_s: float | None) -> Outcome:
    return Outcome(recording=recording, status="rejected", reason=reason, message=message, read_s=read_s)


def _counts(outcomes: list[Outcome], wall_s: float) -> Counts:
    statuses = [outcome.status for outcome in outcomes]
    return Counts(
        num_shards=1,
        num_recordings=len(outcomes),
        num_partial=statuses.count("partial"),
        num_rejected=statuses.count("rejected"),
        num_segments=sum(outcome.num_segments for outcome in outcomes),
        audio_s=seconds(sum(outcome.report.decoded_samples for outcome in outcomes if outcome.report)),
        wall_s=wall_s,
    )
