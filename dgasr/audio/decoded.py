"""What a decoder hands on: the facts of the container, and its audio as it lies there."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


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
