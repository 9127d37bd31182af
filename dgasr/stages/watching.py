"""Whoever is told how far a stream of shards is: nobody, a beat, or a function. Knows no stream."""

from collections.abc import Callable

from dgasr.records import Segment
from dgasr.stages.beat import Beating
from dgasr.stages.counts import DecodedShard


class StreamWatcher:
    """Someone who is told, from any thread; this one looks away."""

    def begin_shard(self, shard_id: str) -> None:
        """A shard's features are fetched from now on."""

    def segment_decoded(self, segment: Segment) -> None:
        """One segment has its text."""

    def end_shard(self, decoded: DecodedShard) -> None:
        """A shard is committed."""


class BeatingWatcher(StreamWatcher):
    """Passes on to a beat how far the stream is.

    Args:
        beating: counts segments, and names the shards in work.
        num_shards: shards that the stream goes through.
    """

    def __init__(self, beating: Beating, num_shards: int) -> None:
        self._beating, self._num_shards, self._num_done = beating, num_shards, 0

    def begin_shard(self, shard_id: str) -> None:
        """Name it among those in work."""
        self._beating.begin(shard_id)

    def segment_decoded(self, segment: Segment) -> None:
        """Count it."""
        self._beating.advance()

    def end_shard(self, decoded: DecodedShard) -> None:
        """Say how many are done."""
        self._num_done += 1
        self._beating.say(f"{self._num_done} of {self._num_shards} shards committed")
        self._beating.end(decoded.shard_id)


class SegmentWatcher(StreamWatcher):
    """Tells one function of every segment."""

    def __init__(self, on_segment: Callable[[Segment], None]) -> None:
        self._on_segment = on_segment

    def segment_decoded(self, segment: Segment) -> None:
        """Tell of it."""
        self._on_segment(segment)
