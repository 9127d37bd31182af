"""The bytes of one recording as decoders see them, limits for what counts as audio, and what a decoder hands on."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, ClassVar

import numpy as np

from dgasr.errors import ConfigError, DgasrError
from dgasr.records import Gap


@dataclass(frozen=True, kw_only=True, slots=True)
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
        max_duration_s: a longer recording is rejected, as soon as that is known.
        block_values: samples times channels that are decoded at once; has no influence on the waveform.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    max_channels: int = 32
    min_sample_rate_hz: int = 1000
    max_sample_rate_hz: int = 1_000_000
    min_samples: int = 400
    tolerance_s: float = 0.1
    max_gap_s: float = 43_200.0
    max_duration_s: float = 172_800.0
    block_values: int = 2**18

    def __post_init__(self) -> None:
        """Refuse limits that no recording can keep."""
        if min(self.max_channels, self.min_sample_rate_hz, self.min_samples, self.block_values) < 1:
            raise ConfigError("AudioConfig: max_channels, min_sample_rate_hz, min_samples, block_values must be ≥ 1.")
        if self.max_sample_rate_hz < self.min_sample_rate_hz or self.max_gap_s < 0:
            raise ConfigError(
                "AudioConfig: max_sample_rate_hz must not be below min_sample_rate_hz, and max_gap_s not negative."
            )
        if min(self.tolerance_s, self.max_duration_s) <= 0:
            raise ConfigError("AudioConfig: tolerance_s and max_duration_s must be positive.")


class Source:
    """A seekable file without its name.

    Decoders guess formats from names, and libsndfile swallows what its read callback raises: a storage error would look
    like the end of the audio. So errors are kept here, and `check` raises them.

    Args:
        file: seekable binary file at any position.
        label: how messages call it, in printable text.
        start, end: which of its bytes count; to its end where `end` is `None`.
    """

    def __init__(self, file: BinaryIO, label: str, start: int = 0, end: int | None = None) -> None:
        self._file = file
        self._error: Exception | None = None
        self._start = start
        self.label = label
        self.num_bytes = (file.seek(0, os.SEEK_END) if end is None else end) - start
        file.seek(start)

    def part(self, start: int, end: int) -> "Source":
        """Return some of the bytes as a source of their own; only one of the two may be read at a time."""
        return Source(self._file, f"{self.label} (bytes {start} to {end})", self._start + start, self._start + end)

    def check(self) -> None:
        """Raise what went wrong while a decoder was reading.

        Raises:
            DgasrError: the storage's own error.
        """
        if self._error is not None:
            raise self._error

    def read(self, num_bytes: int = -1) -> bytes:
        """Read at most `num_bytes`; nothing after an error."""
        left = max(0, self.num_bytes - self.tell())
        if self._error is not None or not left:
            return b""
        try:
            return self._file.read(left if num_bytes < 0 else min(num_bytes, left))
        except (DgasrError, OSError) as error:
            self._error = error
            return b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position and return it."""
        if whence == os.SEEK_END:
            # Asked for again and again to learn the size; a buffered file would drop its buffer each time.
            offset, whence = self.num_bytes + offset, os.SEEK_SET
        return self._file.seek(offset if whence == os.SEEK_CUR else offset + self._start, whence) - self._start

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell() - self._start

    def bytes_at(self, offset: int, num_bytes: int) -> bytes:
        """Read at a position without moving there, and fail at once where that fails.

        Raises:
            DgasrError: the storage's own error.
        """
        before = self.tell()
        self.seek(offset)
        data = self.read(num_bytes)
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
    num_bytes_unread: int = 0
    """Bytes of audio in the file that this decoder does not reach."""
    audio_track: int = 0
    num_audio_tracks: int = 1
