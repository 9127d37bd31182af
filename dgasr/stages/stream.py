"""Staged shards in, committed shards out, through one transcriber that never waits if it can be helped.

One thread fetches features ahead, one commits behind, both bounded. Segments of all shards go to the transcriber in one
stream, so that its batches stay full from one shard to the next. The transcriber is passed in; loads no model.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from typing import Protocol

from dgasr.errors import Reason, TransientError
from dgasr.lake.commit import commit_shard, committed_shards
from dgasr.lake.rows import ShardRows
from dgasr.recipe import Recipe
from dgasr.records import Segment, SegmentFeatures, SegmentTranscript, Shard, silent_transcript
from dgasr.stages.counts import DecodedShard
from dgasr.stages.culprits import crash_message
from dgasr.stages.outcome import Outcome
from dgasr.stages.prefetch import Prefetch
from dgasr.stages.shard_transcripts import ShardTranscripts
from dgasr.stages.staging import delete_part, read_outcomes, read_segments
from dgasr.stages.watching import StreamWatcher

logger = logging.getLogger(__name__)

SEGMENTS_AHEAD = 256
"""Segments that wait for the transcriber: 123 MB where a window is 30 s, and eleven seconds of work at RTFx 700."""

COMMITS_BEHIND = 2
"""Shards whose rows wait to be committed."""


class TranscribesSegments(Protocol):
    """What this asks of a transcriber; `dgasr.transcriber.Transcriber` is one."""

    def transcribe(self, features: Iterable[SegmentFeatures]) -> Iterator[SegmentTranscript]:
        """Yield one transcript for each segment, in any order."""
        ...


Staged = tuple[ShardTranscripts, Segment | None, SegmentFeatures | None]
"""A segment of a shard, its features where somebody speaks; no segment once the shard is read and found whole."""


class ShardStream:
    """Shards on their way from staging into the lake.

    Args:
        recipe: what the transcriber follows.
        transcriber: called for the transcriber once there is something to transcribe.
        lake_uri: lake to commit to.
        staged_uri_of: says where a shard's part is staged.
        run_id: the run that does it.
        watcher: told how far it is.
        crashing: ids of recordings that end the process that transcribes them; they are rejected untried.
    """

    def __init__(
        self,
        recipe: Recipe,
        transcriber: Callable[[], TranscribesSegments],
        lake_uri: str,
        staged_uri_of: Callable[[Shard], str],
        run_id: str,
        watcher: StreamWatcher,
        crashing: frozenset[str] = frozenset(),
    ) -> None:
        self._recipe, self._transcriber, self._lake_uri, self._run_id = recipe, transcriber, lake_uri, run_id
        self._staged_uri_of, self._watcher, self._crashing = staged_uri_of, watcher, crashing
        self._open: dict[str, ShardTranscripts] = {}  # by recording
        self._done: list[DecodedShard] = []
        self._commits: deque[Future[None]] = deque()
        self._failure: TransientError | None = None
        self._marked_at = self._first_at = self._last_at = self._waited_s = 0.0

    @property
    def busy_share(self) -> float | None:
        """Share of the time from first segment to last in which the model did not wait; `None` without speech."""
        lasted_s = self._last_at - self._first_at
        return 1.0 - self._waited_s / lasted_s if lasted_s > 0 else None

    def run(self, shards: Iterable[Shard]) -> list[DecodedShard]:
        """Transcribe shards and commit them as they become complete.

        Returns:
            Counts of all of them.

        Raises:
            TransientError: the storage failed in a way that may pass, or a shard is not staged; whatever else could be
                done is committed.
            IntegrityError: the rows of a shard contradict each other; nothing of it is written.
        """
        self._marked_at = time.monotonic()
        with Prefetch(self._fetch(shards), SEGMENTS_AHEAD) as staged, ThreadPoolExecutor(1) as committer:
            for first in staged:
                features = self._speech(chain([first], staged), committer)
                for transcript in self._transcriber().transcribe(features):
                    gathered = self._open[transcript.segment.recording_id]
                    self._last_at = time.monotonic()
                    self._take(gathered, transcript, committer)
                    self._waited_s += time.monotonic() - self._last_at
            while self._commits:
                self._commits.popleft().result()
        if self._failure is not None:
            raise self._failure
        return self._done

    def _fetch(self, shards: Iterable[Shard]) -> Iterator[Staged]:
        """Read staged parts, in the thread that is ahead."""
        for shard in shards:
            staged_uri = self._staged_uri_of(shard)
            if self._is_committed(shard, staged_uri):
                continue
            self._watcher.begin_shard(shard.shard_id)
            outcomes = read_outcomes(staged_uri)
            if outcomes is None:
                if self._is_committed(shard, staged_uri):
                    continue  # by another run, since it was looked up; who commits a shard deletes its part
                self._failure = TransientError(f"{staged_uri}: no whole part lies here. Prepare the shard again.")
                continue
            gathered = ShardTranscripts(shard, [self._accepted(outcome) for outcome in outcomes])
            yield from self._fetch_part(gathered, staged_uri)

    def _is_committed(self, shard: Shard, staged_uri: str) -> bool:
        """Say whether the lake holds a shard, and end it if so."""
        if not committed_shards(self._lake_uri, self._recipe.recipe_id, [shard]):
            return False
        self._end(DecodedShard(shard_id=shard.shard_id, is_new=False), staged_uri)
        return True

    def _fetch_part(self, gathered: ShardTranscripts, staged_uri: str) -> Iterator[Staged]:
        num_segments = 0
        for segment, features in read_segments(staged_uri):
            if segment.recording_id in gathered.kept:
                num_segments += 1
                yield gathered, segment, features
        if num_segments == gathered.num_segments:
            yield gathered, None, None
        elif not self._is_committed(gathered.shard, staged_uri):
            # Two workers wrote it at once, while the archive changed.
            delete_part(staged_uri)
            self._failure = TransientError(f"{staged_uri}: holds other segments than it says. Prepare the shard again.")

    def _speech(self, staged: Iterator[Staged], committer: ThreadPoolExecutor) -> Iterator[SegmentFeatures]:
        """Hand speech to the transcriber, and take note of the rest."""
        asked_at = time.monotonic()
        try:
            for gathered, segment, features in staged:
                if segment is None:
                    gathered.is_read = True
                    self._commit_if_complete(gathered, committer)
                    continue
                self._open[segment.recording_id] = gathered
                if features is None:
                    self._take(gathered, silent_transcript(segment, self._recipe.language), committer)
                    continue
                now = time.monotonic()
                self._waited_s += now - asked_at if self._first_at else 0.0
                self._first_at = self._first_at or now
                yield features
                asked_at = time.monotonic()
        except TransientError as error:
            # What has been fetched is still transcribed and committed.
            self._failure = error

    def _take(self, gathered: ShardTranscripts, transcript: SegmentTranscript, committer: ThreadPoolExecutor) -> None:
        gathered.add(transcript)
        self._watcher.segment_decoded(transcript.segment)
        self._commit_if_complete(gathered, committer)

    def _commit_if_complete(self, gathered: ShardTranscripts, committer: ThreadPoolExecutor) -> None:
        """Hand a complete shard to the thread that is behind, and wait where that is too far behind."""
        if not gathered.is_complete:
            return
        for recording_id in gathered.kept:
            self._open.pop(recording_id, None)
        if len(self._commits) == COMMITS_BEHIND:
            self._commits.popleft().result()
        now = time.monotonic()
        self._commits.append(committer.submit(self._write, gathered, now - self._marked_at))
        self._marked_at = now

    def _write(self, gathered: ShardTranscripts, wall_s: float) -> None:
        rows = gathered.rows(self._recipe, self._run_id, datetime.now(UTC))
        written = commit_shard(self._lake_uri, rows)
        shard_id = gathered.shard.shard_id
        decoded = _counts(written, wall_s) if written.recordings else DecodedShard(shard_id=shard_id, is_new=False)
        self._end(decoded, self._staged_uri_of(gathered.shard))

    def _end(self, decoded: DecodedShard, staged_uri: str) -> None:
        delete_part(staged_uri)
        self._done.append(decoded)
        logger.info(decoded.line())
        self._watcher.end_shard(decoded)

    def _accepted(self, outcome: Outcome) -> Outcome:
        """Reject a recording that would end this process."""
        if outcome.recording.recording_id not in self._crashing or outcome.status == "rejected":
            return outcome
        message = crash_message(outcome.recording.uri, "transcribed")
        return replace(outcome, status="rejected", reason=Reason.CRASHES_DECODER, message=message, num_segments=0)


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
