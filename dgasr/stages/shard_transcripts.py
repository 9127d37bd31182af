"""Transcripts of one shard as they come, its rows of the lake once all are there. Knows no model and no storage."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from dgasr.lake.rows import Row, ShardRows, recording_row, segment_row
from dgasr.recipe import Recipe
from dgasr.records import SegmentTranscript, Shard
from dgasr.stages.outcome import Outcome


class ShardTranscripts:
    """What is known of a shard between its staged part and its commit.

    Args:
        shard: the shard.
        outcomes: what became of its recordings when they were read.
    """

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
        recordings: list[Row] = [
            recording_row(
                outcome.recording,
                shard_id=shard_id,
                run_id=run_id,
                transcribed_at=now,
                status=outcome.status,
                reason=outcome.reason,
                message=outcome.message,
                report=outcome.report,
                transcripts=members.get(outcome.recording.recording_id, []),
                audio_digest=outcome.audio_digest,
                read_s=outcome.read_s,
                take=self.shard.take,
            )
            for outcome in self._outcomes
        ]
        segments = [segment_row(transcript, shard_id=shard_id) for found in members.values() for transcript in found]
        return ShardRows(
            recipe_id=recipe.recipe_id, shard_id=shard_id, run_id=run_id, recordings=recordings, segments=segments
        )
