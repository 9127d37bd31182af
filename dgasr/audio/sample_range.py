"""Samples that were written in other units, with another sign or off zero, brought to [-1, 1] around zero."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from dgasr.audio.source import Decoded
from dgasr.errors import SampleRangeError, TruncatedError
from dgasr.records import Gap

FLOAT_CODECS = ("float", "double", "pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be", "wavpack")
"""Codecs that keep floating-point samples as they were written."""

LOUDEST_FLOAT = 16.0
"""24 dB above full scale: no floating-point file in [-1, 1] is as loud."""

INTEGER_BITS = (16, 24, 32)
"""Integers in whose units floating-point samples may be: the smallest whose range is at least half of the loudest."""

BYTE_CODECS = ("pcm_u8", "pcm_s8")
"""Codecs of 8 bits; some writers put samples with a sign where those without belong, and the other way round."""

OTHER_SIGN_RATIO = 0.5
"""Samples of 8 bits have the other sign where neighbours then differ by less than this share of what they do now."""

LEAST_OFFSET = 0.01
"""A mean that far from zero, 40 dB below full scale, is no sound: nothing that is heard swings so slowly."""

OFFSET_PART_S, FEWEST_OFFSET_PARTS, OFFSET_SHARE = 0.05, 10, 0.75
"""The offset is the median of the means of such parts, where there are so many, and so large a share has half of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Correction:
    """What brings samples to [-1, 1] around zero."""

    has_other_sign: bool
    num_bits: int | None
    """Of the integers in whose units floating-point samples are; `None` where they are in [-1, 1]."""
    offset: np.ndarray
    """Of each channel.  [channels]"""

    def applied(self, block: np.ndarray) -> np.ndarray:
        """Correct samples.  [frames, channels]"""
        block = _with_other_sign(block) if self.has_other_sign else block
        block = block if self.num_bits is None else block * np.float32(2.0 ** (1 - self.num_bits))
        return block - self.offset if self.offset.any() else block

    def __str__(self) -> str:
        notes = ["8 bits with the other sign"] if self.has_other_sign else []
        notes += [f"units of {self.num_bits} bits"] if self.num_bits is not None else []
        notes += [f"offset of {', '.join(f'{value:.3f}' for value in self.offset)}"] if self.offset.any() else []
        return "; ".join(notes)


def in_range(decoded: Decoded, scale: float, label: str) -> Decoded:
    """Bring samples to [-1, 1] around zero where they were written otherwise, and say so in `corrections`.

    The first second with sound decides for all of it. Floating-point samples are in units of integers where the loudest
    is far above 1, or above 1 and all are whole numbers; 8 bits have the other sign where neighbours then lie closer
    together; a constant offset is taken out of each channel. Before that they are multiplied with `scale`, by its
    header. Blocks raise `SampleRangeError` where what follows does not fit.
    """
    if scale != 1:
        blocks = (block if isinstance(block, Gap) else block * np.float32(scale) for block in decoded.blocks)
        decoded = replace(decoded, blocks=blocks, corrections=["in the low bits of words"])
    return replace(decoded, blocks=_in_range(decoded, label))


def _in_range(decoded: Decoded, label: str) -> Iterator[np.ndarray | Gap]:
    damage: list[TruncatedError] = []
    blocks = _until_damage(decoded.blocks, damage)
    held: list[np.ndarray | Gap] = []
    sound: list[np.ndarray] = []
    num_left = decoded.sample_rate_hz
    while num_left > 0 and (block := next(blocks, None)) is not None:
        if isinstance(block, np.ndarray):
            num_silent = 0 if held else _num_silent(block, decoded.codec)
            if num_silent:
                yield np.zeros_like(block[:num_silent])
            sound.append(block[num_silent:][:num_left])
            num_left -= len(sound[-1])
            block = block[num_silent:]
        if held or (isinstance(block, np.ndarray) and len(block)):
            held.append(block)
        elif isinstance(block, Gap):
            yield block
    correction = _correction(np.concatenate(sound), decoded.codec, decoded.sample_rate_hz) if held else None
    if correction is not None and str(correction):
        decoded.corrections.append(str(correction))
    for block in chain(held, blocks):
        if correction is None or isinstance(block, Gap):
            yield block
        else:
            yield _checked(correction.applied(block), decoded.codec, label)
    if damage:
        raise damage[0]


def _until_damage(blocks: Iterator[np.ndarray | Gap], damage: list[TruncatedError]) -> Iterator[np.ndarray | Gap]:
    """Pass blocks on, and keep what ends them."""
    try:
        yield from blocks
    except TruncatedError as error:
        damage.append(error)


def _num_silent(block: np.ndarray, codec: str) -> int:
    """Count the frames before the first sound; of 8 bits the lowest value is silence of the other sign."""
    is_silent = (block == 0) | (block == -1) if codec in BYTE_CODECS else block == 0
    return int(np.append(~is_silent.all(axis=1), True).argmax())


def _correction(sound: np.ndarray, codec: str, sample_rate_hz: int) -> _Correction:
    """Judge the first second with sound; [frames, channels]."""
    other = _with_other_sign(sound) if codec in BYTE_CODECS else sound
    has_other_sign = _unevenness(other) < OTHER_SIGN_RATIO * _unevenness(sound)
    num_bits = None
    if codec in FLOAT_CODECS:
        peak = float(np.abs(sound).max(initial=0.0))
        if (1.0 if np.array_equal(sound, np.rint(sound)) else LOUDEST_FLOAT) < peak < np.inf:
            num_bits = next((bits for bits in INTEGER_BITS if peak <= 2.0**bits), None)
    found = _Correction(has_other_sign=has_other_sign, num_bits=num_bits, offset=np.zeros(1, np.float32))
    return replace(found, offset=_offset(found.applied(sound), sample_rate_hz))


def _with_other_sign(block: np.ndarray) -> np.ndarray:
    """Move the lower half of the range above the upper one, and back."""
    return np.where(block < 0, block + np.float32(1), block - np.float32(1))


def _unevenness(samples: np.ndarray) -> float:
    return float(np.abs(np.diff(samples, axis=0)).sum())


def _offset(sound: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Find what each channel is off zero by all the time; 0 where it is not.  [frames, channels] → [channels]"""
    size = round(OFFSET_PART_S * sample_rate_hz)
    num_parts = len(sound) // size
    if num_parts < FEWEST_OFFSET_PARTS:
        return np.zeros(sound.shape[1], np.float32)
    means = sound[: num_parts * size].reshape(num_parts, size, -1).mean(axis=1, dtype=np.float64)
    offset = np.median(means, axis=0)
    is_steady = (means * np.sign(offset) > np.abs(offset) / 2).mean(axis=0) >= OFFSET_SHARE
    return np.where(is_steady & (np.abs(offset) >= LEAST_OFFSET), offset, 0.0).astype(np.float32)


def _checked(block: np.ndarray, codec: str, label: str) -> np.ndarray:
    if codec in FLOAT_CODECS and LOUDEST_FLOAT < np.abs(block).max(initial=0.0) < np.inf:  # infinity is refused as that
        raise SampleRangeError(
            f"{label}: its floating-point samples begin in one range and go on up to {np.abs(block).max():.0f} times "
            "it. Write it anew in the range [-1, 1], or as integers."
        )
    return block
