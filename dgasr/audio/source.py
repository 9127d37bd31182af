"""The bytes of one recording as decoders see them, limits for what counts as audio, and what a decoder hands on."""

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import BinaryIO, Literal

import numpy as np

from dgasr.errors import ConfigError, DgasrError, TooSlowError
from dgasr.records import Gap, settings

Channels = Literal["mix", "each"] | int
"""What is made of channels: their mix, a transcript of each, or one of them alone, from 0."""

Track = Literal["auto", "each"] | int
"""Which audio tracks are read: that on which somebody speaks, each, or one alone, from 0."""

LONGEST_ZEROS_BYTES = 2**26
"""Where so many zeros follow each other, FLAC and AC-3 end: libav would hold them all in memory."""

LONGEST_START_BYTES = 40
"""So much of a recording shows that it begins."""


@settings
class Limits:
    """How much one file may take before it is rejected. They change no text, and so no recipe id.

    Attributes:
        max_duration_s: longest recording.
        max_decoded_bytes: most that a track may decode to: 4 bytes a sample, in every channel.
        max_seconds_per_file_wall: longest time that reading a file may take, s; not what is done with its audio.
        min_bytes_per_s: least bytes of the file for a second of audio, beyond the first hour. Digital silence in FLAC
            takes 2 at least; less is made to fill machines.
    """

    max_duration_s: float = 172_800.0
    max_decoded_bytes: int = 2**37
    max_seconds_per_file_wall: float = 7200.0
    min_bytes_per_s: float = 1.0

    def __post_init__(self) -> None:
        """Refuse limits that no recording can keep."""
        for name in (own.name for own in fields(self)):
            if not getattr(self, name) > 0 and name != "min_bytes_per_s":
                raise ConfigError(f"limits: {name}={getattr(self, name)} must be above 0.")


@settings
class AudioConfig:
    """Limits within which bytes count as usable audio.

    Attributes:
        max_channels: a recording with more is rejected.
        min_sample_rate_hz: a header that claims less is taken for wrong.
        max_sample_rate_hz: a header that claims more is taken for wrong.
        min_samples: a recording with less than this at 16 kHz is rejected.
        tolerance_s: how far decoded and declared duration may differ before the recording is `partial`, and how far
            timestamps may run ahead of the samples before the gap between them is filled with silence.
        max_gap_s: a longer jump of timestamps is taken for wrong timestamps and not followed.
        block_values: samples times channels that are decoded at once; has no influence on the waveform.
        channels: `mix` of all, a transcript of `each`, or the number of one, from 0.
        track: `auto` for the one on which somebody speaks, a transcript of `each`, or the number of one, from 0.
        limits: what a file may take before it is rejected.
    """

    max_channels: int = 32
    min_sample_rate_hz: int = 1000
    max_sample_rate_hz: int = 1_000_000
    min_samples: int = 400
    tolerance_s: float = 0.1
    max_gap_s: float = 43_200.0
    block_values: int = 2**18
    channels: Channels = "mix"
    track: Track = "auto"
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        """Refuse channels and tracks that no recording has."""
        for name, allowed in (("channels", ("mix", "each")), ("track", ("auto", "each"))):
            value = getattr(self, name)
            if value not in allowed and (isinstance(value, str) or value < 0):
                raise ConfigError(f"--{name} {value}: choose {', '.join(allowed)} or a number from 0.")


class Stopwatch:
    """Counts the time that reading a file takes, in `with` blocks: not what its readers do in between."""

    def __init__(self, limit_s: float, label: str) -> None:
        self._limit_s, self._label = limit_s, label
        self._spent_s = 0.0
        self._started_at: float | None = None

    def __enter__(self) -> None:
        self._started_at = time.monotonic()

    def __exit__(self, *error: object) -> None:
        self._spent_s, self._started_at = self._elapsed_s(), None

    def check(self) -> None:
        """Raise `TooSlowError` where it takes longer."""
        if self._elapsed_s() > self._limit_s:
            raise TooSlowError(
                f"{self._label}: reading it takes more than max_seconds_per_file_wall={self._limit_s:.0f}. Convert it "
                "to FLAC and transcribe that, or raise the limit if store and machine are slow."
            )

    def _elapsed_s(self) -> float:
        return self._spent_s + (0.0 if self._started_at is None else time.monotonic() - self._started_at)


class Source:
    """A seekable file without its name.

    Decoders guess formats from names, and libsndfile swallows what its read callback raises: a storage error would look
    like the end of the audio. So errors are kept here, and `check` raises them.

    Args:
        file: seekable binary file at any position.
        label: how messages call it, in printable text.
        start, end: which of its bytes count; to its end where `end` is `None`.
        stopwatch: ends the reading where that takes too long, so that no decoder goes on for ever; `None` for never.

    Attributes:
        num_bytes: how many bytes there are for its decoder.
        whole_bytes: how many there were before `end_before` found that another recording begins among them.
        furthest: up to where decoders have read.
        states_length: whether its header says how long it is, or was made to.
        ends_at_zeros: whether decoders see its end where `LONGEST_ZEROS_BYTES` follow each other.
    """

    def __init__(
        self, file: BinaryIO, label: str, start: int = 0, end: int | None = None, stopwatch: Stopwatch | None = None
    ) -> None:
        self._file = file
        self._error: Exception | None = None
        self._stopwatch = stopwatch
        self._start = start
        self.label = label
        self.num_bytes = self.whole_bytes = (file.seek(0, os.SEEK_END) if end is None else end) - start
        self.furthest = 0
        self.states_length = True
        self._next_starts: Sequence[re.Pattern[bytes]] = ()
        self._next_from, self._seen = 0, (0, b"")
        self.ends_at_zeros = False
        self._zeros = (0, 0)
        file.seek(start)

    def part(self, start: int, end: int) -> "Source":
        """Return some of the bytes as a source of their own; only one of the two may be read at a time."""
        label = f"{self.label} (bytes {start} to {end})"
        return Source(self._file, label, self._start + start, self._start + end, self._stopwatch)

    def end_before(self, next_starts: Sequence[re.Pattern[bytes]], offset: int) -> None:
        """Let decoders see the file's end where another recording begins, as soon as they come to it.

        One may begin, from `offset` on, with what `next_starts` match, `LONGEST_START_BYTES` at most.
        """
        self._next_starts, self._next_from = next_starts, offset

    def check(self) -> None:
        """Raise what went wrong while a decoder was reading, the storage's own error."""
        if self._error is not None:
            raise self._error

    def read(self, num_bytes: int = -1) -> bytes:
        """Read at most `num_bytes`; nothing after an error."""
        start = self.tell()
        data = self._read(num_bytes)
        if self._next_starts:
            data = self._before_next(start, data)
        if self.ends_at_zeros:
            data = self._before_zeros(start, data)
        if data:
            self.furthest = max(self.furthest, start + len(data))
        return data

    def _before_next(self, start: int, data: bytes) -> bytes:
        """Leave out what belongs to the next recording, whose first bytes may have been read before these."""
        seen_end, seen = self._seen
        seen = seen if seen_end == start else b""
        first = max(0, self._next_from - start + len(seen))
        found = [match.start() for pattern in self._next_starts if (match := pattern.search(seen + data, first))]
        self._seen = start + len(data), (seen + data)[-LONGEST_START_BYTES:]
        if found:
            self.num_bytes = start - len(seen) + min(found)
        return data[: max(0, self.num_bytes - start)]

    def _before_zeros(self, start: int, data: bytes) -> bytes:
        """End where more zeros follow each other than a stream can have."""
        end, count = self._zeros
        count = 0 if data.strip(b"\0") else len(data) + count * (end == start)
        self._zeros = start + len(data), count
        if count > LONGEST_ZEROS_BYTES:
            self.num_bytes = self.whole_bytes = start
            return b""
        return data

    def _read(self, num_bytes: int) -> bytes:
        left = max(0, self.num_bytes - self.tell())
        if self._error is not None or not left:
            return b""
        try:
            if self._stopwatch is not None:
                self._stopwatch.check()
            return self._file.read(left if num_bytes < 0 else min(num_bytes, left))
        except (DgasrError, OSError) as error:
            self._error = error
            return b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position and return it."""
        if whence == os.SEEK_END:
            # Asked for again and again to learn the size; a buffered file would drop its buffer each time.
            offset, whence = self.num_bytes + offset, os.SEEK_SET
        place = self.tell() + offset if whence == os.SEEK_CUR else offset
        # Damaged headers lead before the beginning; an error here would be printed by libsndfile's wrapper, and lost.
        return self._file.seek(max(0, place) + self._start) - self._start

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell() - self._start

    def bytes_at(self, offset: int, num_bytes: int) -> bytes:
        """Read at a position without moving there; the storage's own error is raised at once."""
        before = self.tell()
        self.seek(offset)
        data = self._read(num_bytes)
        self.seek(before)
        self.check()
        return data


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Decoded:
    """An opened recording, before downmix and resampling."""

    container: str
    codec: str
    sample_rate_hz: int
    num_channels: int
    declared_s: float | None
    """Duration by the header; `None` where it states none, or where the decoder only guesses it."""
    is_cut_off: bool
    """Whether the container itself shows that its end is missing."""
    blocks: Iterator[np.ndarray | Gap]
    """Samples in [-1, 1], float32 [frames, channels], and gaps at the same rate; raises `DamagedError` at the end."""
    share_present: float = 1.0
    """How much of what the header says of its bytes is there, where `declared_s` does not tell."""
    num_bytes_unread: int = 0
    """Bytes of audio in the file that this decoder does not reach."""
    audio_track: int = 0
    num_audio_tracks: int = 1
    unreadable_tracks: tuple[int, ...] = ()
    """Those of its audio tracks that no decoder knows."""
    likely_s: float = 0.0
    """Duration by the file's size, where its header says nothing true and every second takes as many bytes."""
    corrections: list[str] = field(default_factory=list)
    """What was wrong with the range of its samples and was put right; known once `blocks` is used up."""
    next_start: Callable[[], int | None] = lambda: None
    """Asked once `blocks` is used up: the byte at which another recording begins that this decoder did not read."""
