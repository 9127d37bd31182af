"""Samples that were written in other units or in other bits than their header says, brought to [-1, 1]."""

from collections.abc import Iterator

import numpy as np

from dgasr.errors import SampleRangeError, TruncatedError
from dgasr.records import Gap

FLOAT_CODECS = ("float", "double", "pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be", "wavpack")
"""Codecs that keep floating-point samples as they were written."""

LOUDEST_FLOAT = 16.0
"""24 dB above full scale: no floating-point file in [-1, 1] is as loud."""

FULL_SCALES = (2.0**15, 2.0**23, 2.0**31)
"""Of integers of 16, 24 and 32 bits; the smallest that is at least half of the loudest sample is taken."""


def in_range(blocks: Iterator[np.ndarray | Gap], sample_rate_hz: int, label: str) -> Iterator[np.ndarray | Gap]:
    """Bring floating-point samples that were written in units of integers to [-1, 1].

    The first second with sound decides: in such files the loudest of it is far above 1, or they are whole numbers.

    Args:
        blocks: samples, [frames, channels], and gaps.
        sample_rate_hz: of the samples.
        label: how messages call the file.

    Raises:
        SampleRangeError: what follows does not fit.
    """
    scale: np.float32 | None = None
    peak, num_left, is_whole = 0.0, sample_rate_hz, True
    waiting: list[np.ndarray | Gap] = []
    damage: TruncatedError | None = None
    while True:
        try:
            block = next(blocks, None)
        except TruncatedError as error:
            damage, block = error, None
        if block is None:
            break
        if isinstance(block, Gap):
            if scale is None and waiting:
                waiting.append(block)
            else:
                yield block
        elif scale is not None:
            yield _checked(block * scale, label)
        else:
            sounding = np.arange(1) if waiting else np.flatnonzero(np.abs(block).max(axis=1))
            if not sounding.size:
                yield block
                continue
            waiting.append(block)
            judged = block[sounding[0] : sounding[0] + num_left]
            peak, num_left = max(peak, float(np.abs(judged).max())), num_left - len(judged)
            is_whole = is_whole and np.array_equal(judged, np.rint(judged))
            if not num_left:
                scale = _scale(peak, is_whole)
                yield from _scaled(waiting, scale, label)
    if scale is None:
        yield from _scaled(waiting, _scale(peak, is_whole), label)
    if damage is not None:
        raise damage


def scaled(blocks: Iterator[np.ndarray | Gap], scale: float) -> Iterator[np.ndarray | Gap]:
    """Multiply all samples."""
    return (block if isinstance(block, Gap) else block * np.float32(scale) for block in blocks)


def _scale(peak: float, is_whole: bool) -> np.float32:
    """Return what brings samples to [-1, 1], by the loudest of the first second and whether all are whole numbers."""
    if not (1.0 if is_whole else LOUDEST_FLOAT) < peak < np.inf:
        return np.float32(1.0)
    return np.float32(1.0 / next((full for full in FULL_SCALES if peak <= 2 * full), 1.0))


def _scaled(held: list[np.ndarray | Gap], scale: np.float32, label: str) -> Iterator[np.ndarray | Gap]:
    return (piece if isinstance(piece, Gap) else _checked(piece, label) for piece in scaled(iter(held), float(scale)))


def _checked(block: np.ndarray, label: str) -> np.ndarray:
    if LOUDEST_FLOAT < np.abs(block).max(initial=0.0) < np.inf:  # what is infinite is refused as that
        raise SampleRangeError(
            f"{label}: its floating-point samples begin in one range and go on up to {np.abs(block).max():.0f} times "
            "it. Write it anew in the range [-1, 1], or as integers."
        )
    return block
