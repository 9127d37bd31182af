"""A fingerprint of decoded audio: blocks of waveform in, a digest out. Equal audio is known by it under any name."""

import hashlib
from collections.abc import Iterator

import numpy as np

from dgasr.records import Gap

FULL_SCALE = 32768
"""What 1.0 is in samples of 16 bits, as decoders divide them."""


class WaveformDigest:
    """Hashes samples as they pass, rounded to 16 bits: the same for every lossless copy, however it comes in blocks."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def passing(self, pieces: Iterator[np.ndarray | Gap]) -> Iterator[np.ndarray | Gap]:
        """Hand pieces on and take note of them.

        Args:
            pieces: mono samples in [-1, 1], [samples] each, and gaps.
        """
        for block in pieces:
            if isinstance(block, Gap):
                self._hash.update(f"gap of {block.num_samples}".encode())
                yield block
                continue
            samples = np.clip(np.rint(block * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1)
            self._hash.update(samples.astype("<i2").tobytes())
            yield block

    def hexdigest(self) -> str:
        """Return the fingerprint of what has passed: 32 hex digits, blake2b over little-endian samples."""
        return self._hash.hexdigest()
