"""The bytes of one recording as decoders see them, limits for what counts as audio, and what a decoder hands on."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, ClassVar

import numpy as np

from dgasr.errors import ConfigError, DgasrError


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
        max_gap_s: a longer jump of timestamps is taken for wrong timestamps and not filled.
        block_values: samples times channels that are decoded at once; has no influence on the waveform.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    max_channels: int = 32
    min_sample_rate_hz: int = 1000
    max_sample_rate_hz: int = 1_000_000
    min_samples: int = 400
    tolerance_s: float = 0.1
    max_gap_s: float = 60.0
    block_values: int = 2**18

    def __post_init__(self) -> None:
        """Refuse limits that no recording can keep."""
        if min(self.max_channels, self.min_sample_rate_hz, self.min_samples, self.block_values) < 1:
            raise ConfigError("AudioConfig: max_channels, min_sample_rate_hz, min_samples, block_values must be ≥ 1.")
        if self.max_sample_rate_hz < self.min_sample_rate_hz or self.tolerance_s <= 0 or self.max_gap_s < 0:
            raise ConfigError(
                "AudioConfig: max_sample_rate_hz must not be below min_sample_rate_hz, tolerance_s must be positive "
                "and max_gap_s not negative."
            )


class Source:
    """A seekable file without its name.

    Decoders guess formats from names, and libsndfile swallows what its read callback raises: a storage error would look
    like the end of the audio. So errors are kept here, and `check` raises them.

    Args:
        file: seekable binary file at any position.
        label: how messages call it, in printable text.
    """

    def __init__(self, file: BinaryIO, label: str) -> None:
        self._file = file
        self._error: Exception | None = None
        self.label = label
        self.num_bytes = file.seek(0, os.SEEK_END)
        file.seek(0)

    def check(self) -> None:
        """Raise what went wrong while a decoder was reading.

        Raises:
            DgasrError: the storage's own error.
        """
        if self._error is not None:
            raise self._error

    def read(self, num_bytes: int = -1) -> bytes:
        """Read at most `num_bytes`; nothing after an error."""
        if self._error is not None:
            return b""
        try:
            return self._file.read(num_bytes)
        except (DgasrError, OSError) as error:
            self._error = error
            return b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position and return it."""
        if whence == os.SEEK_END:
            # Asked for again and again to learn the size; a buffered file would drop its buffer each time.
            offset, whence = self.num_bytes + offset, os.SEEK_SET
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

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
    blocks: Iterator[np.ndarray]
    """Samples in [-1, 1], float32 [frames, channels]; raises `DamagedError` after the last block."""
