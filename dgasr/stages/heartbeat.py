"""Heartbeats: a small object that a worker writes every few seconds, and that whoever waits for it reads.

Knows neither what is worked on nor who reads. A heartbeat is never worth failing for: storage errors are logged.
"""

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from types import TracebackType

from dgasr.errors import DgasrError, IntegrityError, ObjectMissingError
from dgasr.records import Segment
from dgasr.stages.counts import DecodedShard
from dgasr.store import objects

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Beat:
    """One sign of life."""

    sequence: int
    """Counts the beats, from 1: a worker whose beats stop counting is dead, whatever its clock says."""
    num_done: int
    """What has been done so far, in whatever the worker counts; it only grows. One whose count stops is stuck."""
    shard_ids: tuple[str, ...]
    """Shards in work."""
    at: datetime
    """When it was written, by the worker's clock, UTC."""
    line: str
    """How far the worker is, for a person."""


class Beating:
    """Writes beats from a thread of its own while a `with` block lasts; all methods may be called from any thread.

    Args:
        uri: object that is overwritten with each beat.
        interval_s: time between two beats, s.
    """

    def __init__(self, uri: str, interval_s: float = 15.0) -> None:
        self._uri = uri
        self._interval_s = interval_s
        self._state = threading.Lock()
        self._writing = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._keep_writing, name="beat", daemon=True)
        self._sequence = 0
        self._num_done = 0
        self._shard_ids: set[str] = set()
        self._line = "begins"

    def __enter__(self) -> "Beating":
        self.write()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopped.set()
        self._thread.join()
        self.write()

    def advance(self, count: int = 1) -> None:
        """Count what has been done; seen with the next beat."""
        with self._state:
            self._num_done += count

    def say(self, line: str) -> None:
        """Say how far the work is, in one line; seen with the next beat."""
        with self._state:
            self._line = line

    def begin(self, shard_id: str) -> None:
        """Name a shard that is in work from now on, at once: if it kills this process, its name must lie there."""
        with self._state:
            self._shard_ids.add(shard_id)
        self.write()

    def end(self, shard_id: str) -> None:
        """Take back a shard's name once it can do no harm any more; seen with the next beat."""
        with self._state:
            self._shard_ids.discard(shard_id)

    def write(self) -> None:
        """Write a beat now."""
        with self._writing:
            beat = self._next()
            row = asdict(beat) | {"at": beat.at.isoformat()}
            try:
                objects.write_bytes(self._uri, json.dumps(row).encode())
            except (DgasrError, OSError) as error:
                logger.warning("beat %d is not written: %s", beat.sequence, error)

    def _next(self) -> Beat:
        with self._state:
            self._sequence += 1
            return Beat(
                sequence=self._sequence,
                num_done=self._num_done,
                shard_ids=tuple(sorted(self._shard_ids)),
                at=datetime.now(UTC),
                line=self._line,
            )

    def _keep_writing(self) -> None:
        while not self._stopped.wait(self._interval_s):
            self.write()


def read_beat(uri: str) -> Beat | None:
    """Read the last beat of a worker; `None` where it has not begun.

    Raises:
        IntegrityError: something else lies there.
        TransientError: the storage failed in a way that may pass.
    """
    try:
        row = json.loads(objects.read_bytes(uri))
        at = datetime.fromisoformat(row["at"])
        return Beat(**row | {"at": at, "shard_ids": tuple(row["shard_ids"])})
    except ObjectMissingError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise IntegrityError(f"{uri}: is no beat ({error!r}). Remove it; its run notices and goes on.") from error


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
