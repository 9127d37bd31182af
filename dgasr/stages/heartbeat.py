"""Progress of work, reported to a callback object and written every few seconds as a small object, the heartbeat.

A heartbeat says that its worker lives, how far it is and which shards it has in work. Writing one is never worth
failing for: storage errors are logged.
"""

import logging
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType

from pydantic import TypeAdapter

from dgasr import store
from dgasr.errors import DgasrError, IntegrityError, ObjectMissingError
from dgasr.records import Shard
from dgasr.stages.counts import Counts

logger = logging.getLogger(__name__)


class Progress:
    """Is told how far work is, from any thread; this one ignores all of it."""

    def begin_reading(self, shard: Shard) -> None:
        """The audio of a shard is read from now on."""

    def recording_read(self) -> None:
        """One recording of it is read."""

    def segment_read(self) -> None:
        """One segment of it is staged."""

    def begin_decoding(self, shard: Shard, num_segments: int) -> None:
        """The segments of a shard go to the model from now on."""

    def segment_decoded(self) -> None:
        """One of them has its text."""

    def end_shard(self, shard_id: str, counts: Counts) -> None:
        """The shard is staged, or committed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Heartbeat:
    """One sign of life."""

    sequence: int
    """Counts the heartbeats, from 1: a worker whose heartbeats stop counting is dead, whatever its clock says."""
    num_done: int
    """Segments done so far; it only grows. A worker whose count stops is stuck."""
    shard_ids: tuple[str, ...]
    """Shards in work."""
    at: datetime
    """When it was written, by the worker's clock, UTC."""
    line: str
    """How far the worker is, for a person."""


HEARTBEAT = TypeAdapter(Heartbeat)
"""Reads and writes a heartbeat as JSON; a worker of a newer version may write more fields than this version knows."""


class HeartbeatWriter(Progress):
    """Overwrites an object with a heartbeat every `interval_s` while a `with` block lasts, from a thread of its own."""

    def __init__(self, uri: str, interval_s: float = 15.0) -> None:
        self._uri, self._interval_s = uri, interval_s
        self._state, self._writing = threading.Lock(), threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._keep_writing, name="heartbeat", daemon=True)
        self._sequence = 0
        self._num_done = self._num_shards_done = 0
        self._shard_ids: set[str] = set()
        self._line = "begins"

    def __enter__(self) -> "HeartbeatWriter":
        self.write()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopped.set()
        self._thread.join()
        self.write()

    def begin_reading(self, shard: Shard) -> None:
        """Name a shard at once: if it kills this process, its name must lie there."""
        with self._state:
            self._shard_ids.add(shard.shard_id)
        self.write()

    def begin_decoding(self, shard: Shard, num_segments: int) -> None:
        """Name a shard at once, likewise."""
        self.begin_reading(shard)

    def segment_decoded(self) -> None:
        """Count it; seen with the next heartbeat."""
        self.advance(1)

    def end_shard(self, shard_id: str, counts: Counts) -> None:
        """Take back the shard's name: it can do no harm any more."""
        with self._state:
            self._shard_ids.discard(shard_id)
            self._num_shards_done += 1
            self._line = f"{self._num_shards_done} shards done"

    def advance(self, count: int) -> None:
        """Count segments that are done; seen with the next heartbeat."""
        with self._state:
            self._num_done += count

    def describe(self, line: str) -> None:
        """Set the line for a person; seen with the next heartbeat."""
        with self._state:
            self._line = line

    def write(self) -> None:
        """Write a heartbeat now."""
        with self._writing:
            heartbeat = self._next()
            try:
                store.write_bytes(self._uri, HEARTBEAT.dump_json(heartbeat))
            except (DgasrError, OSError) as error:
                logger.warning("heartbeat %d is not written: %s", heartbeat.sequence, error)

    def _next(self) -> Heartbeat:
        with self._state:
            self._sequence += 1
            return Heartbeat(
                sequence=self._sequence,
                num_done=self._num_done,
                shard_ids=tuple(sorted(self._shard_ids)),
                at=datetime.now(UTC),
                line=self._line,
            )

    def _keep_writing(self) -> None:
        while not self._stopped.wait(self._interval_s):
            self.write()


def read_heartbeat(uri: str) -> Heartbeat | None:
    """Read the last heartbeat of a worker; `None` where it has not begun, IntegrityError where something else lies."""
    try:
        return HEARTBEAT.validate_json(store.read_bytes(uri))
    except ObjectMissingError:
        return None
    except ValueError as error:
        raise IntegrityError(f"{uri}: is no heartbeat ({error}). Remove it; its run notices and goes on.") from error
