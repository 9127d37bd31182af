"""Staged parts in, committed shards out: text, words and times, with one model for a whole assignment.

One thread fetches features ahead, one commits behind, both bounded. Segments of all shards go to the transcriber in one
stream, so that its batches stay full from one shard to the next. The transcriber is passed in.
"""

import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING

from dgasr.errors import ConfigError, Reason, TransientError
from dgasr.lake.ledger import commit_shard, committed_shards
from dgasr.lake.rows import ShardRows, recording_row, segment_row
from dgasr.recipe import Recipe
from dgasr.records import Segment, SegmentFeatures, SegmentTranscript, Shard, silent_transcript
from dgasr.stages.counts import Counts
from dgasr.stages.engine import Engine
from dgasr.stages.heartbeat import Progress
from dgasr.stages.plan import read_assignment
from dgasr.stages.staging import Outcome, delete_part, prefetch, read_outcomes, read_segments, staged_uri_of

if TYPE_CHECKING:
    from dgasr.transcriber import Transcriber

logger = logging.getLogger(__name__)

SEGMENTS_AHEAD = 256
"""Segments that wait for the transcriber: 123 MB where a window is 30 s, and eleven seconds of work at RTFx 700."""

COMMITS_BEHIND = 2
"""Shards whose rows wait to be committed."""


Staged = tuple["ShardTranscripts", Segment | None, SegmentFeatures | None]
"""A segment of a shard, its features where somebody speaks; no segment once the shard is read and found whole."""


def decode_assignment(
    assignment_uri: str,
    recipe: Recipe,
    engine: Callable[[], Engine],
    lake_uri: str,
    run_id: str,
    *,
    progress: Progress,
    suspects: frozenset[str] = frozenset(),
    rejected: frozenset[str] = frozenset(),
) -> Counts:
    """Turn the staged features of an assignment into committed shards.

    Args:
        assignment_uri: the assignment.
        recipe: how to transcribe.
        engine: loads the model, once; not called where nobody speaks or everything is committed already.
        lake_uri: lake to commit to.
        run_id: the run that does it.
        progress: told how far the work is; a heartbeat names the shards in work.
        suspects: ids of shards that were in work when processes died. Each is decoded alone after the others, so that
            a process that dies again has named the one that did it.
        rejected: ids of shards that ended processes when they were alone: their recordings are rejected.

    Raises:
        As `ShardStream.run`.
    """
    started = time.monotonic()
    shards = read_assignment(assignment_uri).shards
    stream = ShardStream(recipe, engine, lake_uri, run_id, progress, rejected)
    counts = stream.run(shard for shard in shards if shard.shard_id not in suspects)
    for shard in shards:
        if shard.shard_id in suspects:
            counts += stream.run([shard])
    return replace(counts, wall_s=time.monotonic() - started)


class ShardStream:
    """Shards on their way from staging into the lake; what it takes is as for `decode_assignment`."""

    def __init__(
        self,
        recipe: Recipe,
        engine: Callable[[], Engine],
        lake_uri: str,
        run_id: str,
        progress: Progress,
        rejected: frozenset[str] = frozenset(),
    ) -> None:
        self._recipe, self._engine, self._lake_uri, self._run_id = recipe, engine, lake_uri, run_id
        self._progress, self._rejected = progress, rejected
        self._open: dict[str, ShardTranscripts] = {}  # by recording
        self._done: list[Counts] = []
        self._commits: deque[Future[None]] = deque()
        self._failure: TransientError | None = None
        self._marked_at = self._first_at = self._last_at = self._waited_s = 0.0

    def run(self, shards: Iterable[Shard]) -> Counts:
        """Transcribe shards and commit them as they become complete.

        ConfigError where the engine follows another recipe; IntegrityError where the rows of a shard contradict each
        other: nothing of it is written; TransientError where the storage failed in a way that may pass, or a shard is
        not staged: whatever else could be done is committed.
        """
        self._done = []
        self._marked_at, self._first_at, self._last_at, self._waited_s = time.monotonic(), 0.0, 0.0, 0.0
        with prefetch(self._fetch(shards), SEGMENTS_AHEAD) as staged, ThreadPoolExecutor(1) as committer:
            speech = self._speech(staged, committer)
            for first in speech:  # without speech the model is not loaded
                transcriber = self._transcriber()
                self._first_at = self._first_at or time.monotonic()
                for transcript in transcriber.transcribe(chain([first], speech)):
                    gathered = self._open[transcript.segment.recording_id]
                    self._last_at = time.monotonic()
                    self._take(gathered, transcript, committer)
                    self._waited_s += time.monotonic() - self._last_at
            while self._commits:
                self._commits.popleft().result()
        if self._failure is not None:
            raise self._failure
        stream_s = self._last_at - self._first_at
        return sum(self._done, Counts(stream_s=stream_s, busy_s=max(0.0, stream_s - self._waited_s)))

    def _fetch(self, shards: Iterable[Shard]) -> Iterator[Staged]:
        """Read staged parts, in the thread that is ahead."""
        for shard in shards:
            staged_uri = staged_uri_of(self._lake_uri, self._recipe.recipe_id, shard)
            if self._is_committed(shard):
                continue
            outcomes = read_outcomes(staged_uri)
            if outcomes is None:
                if self._is_committed(shard):
                    continue  # by another run, since it was looked up; who commits a shard deletes its part
                self._failure = TransientError(f"{staged_uri}: no whole part lies here. Prepare the shard again.")
                continue
            if shard.shard_id in self._rejected:
                outcomes = list(map(_rejected, outcomes))
            gathered = ShardTranscripts(shard, outcomes)
            self._progress.begin_decoding(shard, gathered.num_segments)
            yield from self._fetch_part(gathered, staged_uri)

    def _is_committed(self, shard: Shard) -> bool:
        """Say whether the lake holds a shard, and end it if so."""
        if not committed_shards(self._lake_uri, self._recipe.recipe_id, [shard]):
            return False
        self._end(shard, Counts(num_shards=1, num_shards_held=1))
        return True

    def _fetch_part(self, gathered: "ShardTranscripts", staged_uri: str) -> Iterator[Staged]:
        num_segments = 0
        for segment, features in read_segments(staged_uri) if gathered.kept else ():
            if segment.recording_id in gathered.kept:
                num_segments += 1
                yield gathered, segment, features
        if num_segments == gathered.num_segments:
            yield gathered, None, None
        elif not self._is_committed(gathered.shard):
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
                self._waited_s += time.monotonic() - asked_at if self._first_at else 0.0
                yield features
                asked_at = time.monotonic()
        except TransientError as error:
            # What has been fetched is still transcribed and committed.
            self._failure = error

    def _transcriber(self) -> "Transcriber":
        """Load the model, and make sure that it is the one that was asked for."""
        engine = self._engine()
        if engine.recipe != self._recipe:
            found, wanted = engine.recipe.recipe_id, self._recipe.recipe_id
            raise ConfigError(
                f"The model on this machine follows recipe {found}, the run {wanted}. "
                "Give all workers the same version of dgasr and the same model and adapter files."
            )
        return engine.transcriber

    def _take(self, gathered: "ShardTranscripts", transcript: SegmentTranscript, committer: ThreadPoolExecutor) -> None:
        gathered.add(transcript)
        self._progress.segment_decoded()
        self._commit_if_complete(gathered, committer)

    def _commit_if_complete(self, gathered: "ShardTranscripts", committer: ThreadPoolExecutor) -> None:
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

    def _write(self, gathered: "ShardTranscripts", wall_s: float) -> None:
        rows = gathered.rows(self._recipe, self._run_id, datetime.now(UTC))
        written = commit_shard(self._lake_uri, rows)
        held = Counts(num_shards=1, num_shards_held=1)
        self._end(gathered.shard, _counts(written, wall_s) if written.recordings else held)

    def _end(self, shard: Shard, counts: Counts) -> None:
        delete_part(staged_uri_of(self._lake_uri, self._recipe.recipe_id, shard))
        self._done.append(counts)
        logger.info("shard %s: %s", shard.shard_id, counts.line())
        self._progress.end_shard(shard.shard_id, counts)


OF_OUTCOME = ("recording", "status", "reason", "message", "report", "audio_digest", "read_s")
"""What a recording's row says as its outcome does, under the same names."""


class ShardTranscripts:
    """What is known of a shard between its staged part and its commit; outcomes say what became of its recordings."""

    def __init__(self, shard: Shard, outcomes: Sequence[Outcome]) -> None:
        self.shard = shard
        self._outcomes = outcomes
        self._transcripts: dict[str, list[SegmentTranscript]] = defaultdict(list)
        self.kept = frozenset(o.recording.recording_id for o in outcomes if o.status != "rejected")
        self.num_segments = sum(outcome.num_segments for outcome in outcomes)
        self._num_missing = self.num_segments
        self.is_read = False

    @property
    def is_complete(self) -> bool:
        """Whether the part is read, and every segment of every recording that is kept has its transcript."""
        return self.is_read and self._num_missing == 0

    def add(self, transcript: SegmentTranscript) -> None:
        """Take a transcript; they may come in any order."""
        self._transcripts[transcript.segment.recording_id].append(transcript)
        self._num_missing -= 1

    def rows(self, recipe: Recipe, run_id: str, now: datetime) -> ShardRows:
        """Make the shard's rows."""
        members = {
            recording_id: sorted(found, key=lambda transcript: transcript.segment.segment_index)
            for recording_id, found in self._transcripts.items()
        }
        shard_id = self.shard.shard_id
        recordings = [
            recording_row(
                **{name: getattr(outcome, name) for name in OF_OUTCOME},
                transcripts=members.get(outcome.recording.recording_id, []),
                shard_id=shard_id, run_id=run_id, transcribed_at=now, take=self.shard.take,
            )
            for outcome in self._outcomes
        ]  # fmt: skip
        segments = [segment_row(transcript, shard_id=shard_id) for found in members.values() for transcript in found]
        return ShardRows(
            recipe_id=recipe.recipe_id, shard_id=shard_id, run_id=run_id, recordings=recordings, segments=segments
        )


def _rejected(outcome: Outcome) -> Outcome:
    """Reject a recording of a shard that ends the process which transcribes it."""
    if outcome.status == "rejected":
        return outcome
    message = (
        f"{outcome.recording.uri}: its shard ended or held up every process that transcribed it. Transcribe it "
        f"again in one of its own: backfill with `reasons: [{Reason.CRASHES_DECODER}]`, `shard: {{max_recordings: 1}}`."
    )
    return replace(outcome, status="rejected", reason=Reason.CRASHES_DECODER, message=message, num_segments=0)


def _counts(rows: ShardRows, wall_s: float) -> Counts:
    statuses = [row["status"] for row in rows.recordings]
    return Counts(
        num_shards=1,
        num_recordings=len(statuses),
        num_partial=statuses.count("partial"),
        num_rejected=statuses.count("rejected"),
        num_segments=len(rows.segments),
        num_words=sum(row["num_words"] for row in rows.recordings),
        audio_s=sum(row["decoded_s"] for row in rows.recordings),
        speech_s=sum(row["speech_s"] for row in rows.recordings),
        wall_s=wall_s,
    )
