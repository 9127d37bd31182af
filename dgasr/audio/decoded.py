"""What a decoder hands on: the facts of the container, and its audio as it lies there."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dgasr.records import Gap


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
