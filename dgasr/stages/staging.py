"""The staged feature part: segments with their features on the way from `prepare` to `decode`. Knows no audio.

A part is a folder of Arrow IPC streams of bounded size, numbered, and `outcomes.json`, which is written last: where it
exists, the part is whole. Its streams depend on audio and recipe only, so that two workers on one shard write the same.
A killed process leaves a part behind: the next run on the shard writes it anew, and any later run removes it.
"""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import Full, Queue
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from pydantic import TypeAdapter

from dgasr import store
from dgasr.errors import ConfigError, ObjectError, ObjectMissingError, Reason
from dgasr.lake.schema import RecordingStatus
from dgasr.records import AudioReport, Recording, Segment, SegmentFeatures, Shard


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """A recording after its audio was read."""

    recording: Recording
    status: RecordingStatus
    reason: Reason | None = None
    """Why it is not `ok`."""
    message: str | None = None
    """What, where, what now; for a person."""
    num_segments: int = 0
    """Segments it was cut into; 0 for a rejected recording."""
    report: AudioReport | None = None
    """What the container claims and what was decoded; `None` for a rejected recording."""
    audio_digest: str | None = None
    """Fingerprint of the decoded audio, see `audio.digest`; `None` for a rejected recording."""
    read_s: float | None = None
    """Time it took to read, s; `None` where it was not tried."""


OUTCOMES = TypeAdapter(list[Outcome])
"""Reads and writes outcomes as JSON; fields that only a newer version knows are left out."""

CHUNK_BYTES = 16 * 2**20
"""Features in one object of a part: bounds the memory of both sides."""

STAGED_SEGMENT = pa.schema(
    [
        pa.field("recording_id", pa.string(), nullable=False),
        pa.field("segment_index", pa.int64(), nullable=False),
        pa.field("audio_track", pa.int32(), nullable=False),
        pa.field("channel", pa.int32(), nullable=False),
        pa.field("start_sample", pa.int64(), nullable=False),
        pa.field("end_sample", pa.int64(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("cut", pa.string(), nullable=False),
        pa.field("num_frames", pa.int32(), nullable=False),
        pa.field("log_mel", pa.large_binary()),  # float16, [mels, frames]; null for a silent segment
        pa.field("pad_value", pa.float64()),
    ]
)
"""Columns of a staged segment."""


class StagedPart:
    """A part being written to a folder; a `with` block that ends with an error writes nothing more."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._rows: list[dict[str, Any]] = []
        self._num_bytes = 0
        self._num_chunks = 0
        self._outcomes: list[Outcome] = []

    def __enter__(self) -> "StagedPart":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            self._flush()
            self._delete_leftovers()
            _write(f"{self._uri}/outcomes.json", OUTCOMES.dump_json(self._outcomes, indent=1))

    def add(self, segment: Segment, features: SegmentFeatures | None) -> None:
        """Append a segment; `features` is `None` for a silent one."""
        log_mel = None if features is None else np.ascontiguousarray(features.log_mel, dtype="<f2")
        self._rows.append(
            {name: getattr(segment, name) for name in STAGED_SEGMENT.names[:8]}
            | {
                "num_frames": 0 if log_mel is None else log_mel.shape[1],
                "log_mel": None if log_mel is None else log_mel.tobytes(),
                "pad_value": None if features is None else features.pad_value,
            }
        )
        self._num_bytes += 0 if log_mel is None else log_mel.nbytes
        if self._num_bytes >= CHUNK_BYTES:
            self._flush()

    def finish(self, outcome: Outcome) -> None:
        """Note what became of a recording once its last segment is in."""
        self._outcomes.append(outcome)

    def _delete_leftovers(self) -> None:
        """Remove chunks beyond the last one, which a killed run wrote when the archive still held more."""
        for uri in list(store.list_uris(f"{self._uri}/")):
            name = uri.rpartition("/")[2]
            if name.endswith(".arrow") and name >= f"{self._num_chunks:05d}.arrow":
                store.delete(uri)

    def _flush(self) -> None:
        if self._rows:
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, STAGED_SEGMENT) as writer:
                writer.write_batch(pa.RecordBatch.from_pylist(self._rows, schema=STAGED_SEGMENT))
            _write(f"{self._uri}/{self._num_chunks:05d}.arrow", sink.getvalue().to_pybytes())
            self._rows, self._num_bytes, self._num_chunks = [], 0, self._num_chunks + 1


def read_outcomes(uri: str) -> list[Outcome] | None:
    """Read what became of the recordings of a part; `None` where no whole part lies."""
    try:
        return OUTCOMES.validate_json(store.read_bytes(f"{uri}/outcomes.json"))
    except ObjectMissingError:
        return None


def read_segments(uri: str) -> Iterator[tuple[Segment, SegmentFeatures | None]]:
    """Read the segments of a whole part, one chunk in memory at a time."""
    for chunk_uri in sorted(chunk for chunk in store.list_uris(f"{uri}/") if chunk.endswith(".arrow")):
        with pa.ipc.open_stream(store.read_bytes(chunk_uri)) as reader:
            for batch in reader:
                yield from map(_segment, batch.to_pylist())


def delete_part(uri: str) -> None:
    """Remove a part, its mark of wholeness first."""
    for object_uri in sorted(store.list_uris(f"{uri}/"), reverse=True):
        store.delete(object_uri)


def _write(uri: str, data: bytes) -> None:
    try:
        store.write_bytes(uri, data)
    except ObjectError as error:
        # No fault of the recording that is being read.
        raise ConfigError(f"{uri}: the lake cannot be written ({error}). Check its permissions.") from error


def _segment(row: dict[str, Any]) -> tuple[Segment, SegmentFeatures | None]:
    segment = Segment(**{name: row[name] for name in STAGED_SEGMENT.names[:8]})
    if row["log_mel"] is None:
        return segment, None
    log_mel = np.frombuffer(row["log_mel"], dtype="<f2").reshape(-1, row["num_frames"])
    return segment, SegmentFeatures(segment=segment, log_mel=log_mel, pad_value=row["pad_value"])


def staged_uri_of(lake_uri: str, recipe_id: str, shard: Shard) -> str:
    """Say where a shard's staged part lies."""
    return f"{lake_uri}/staging/{recipe_id}/{shard.shard_id}"


Item = TypeVar("Item")

RETRY_S = 0.2
"""How often a thread that may go no further ahead looks whether it is still wanted, s."""


@contextmanager
def prefetch(source: Iterable[Item], num_ahead: int) -> Iterator[Iterator[Item]]:
    """Iterate over a source in a thread of its own, up to `num_ahead` items ahead, until the `with` block ends.

    What the source raises is raised where the item would have come. Where the block ends with an error, such as Ctrl-C,
    the thread is not waited for: it ends with the item that it is at, or with the process.
    """
    ready: Queue[tuple[list[Item], BaseException | None]] = Queue(num_ahead)
    is_over = threading.Event()

    def work() -> None:
        try:
            for item in source:
                if not put([item]):
                    return
            put([])
        except BaseException as error:
            put([], error)

    def put(items: list[Item], error: BaseException | None = None) -> bool:
        while not is_over.is_set():
            with suppress(Full):
                ready.put((items, error), timeout=RETRY_S)
                return True
        return False

    def take() -> Iterator[Item]:
        items, error = ready.get()
        while items:
            yield items[0]
            items, error = ready.get()
        if error is not None:
            raise error

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        yield take()
    finally:
        is_over.set()
    thread.join()
