"""One recording as waveform blocks: choose a decoder, mix down, resample, compare with the header, fingerprint."""

import hashlib
import logging
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import soxr

from dgasr.audio.headers import read_chunk_claim
from dgasr.audio.libav import open_libav
from dgasr.audio.sndfile import open_sndfile
from dgasr.audio.source import AudioConfig, Decoded, Source
from dgasr.errors import (
    EmptyFileError,
    InvalidHeaderError,
    MisdeclaredError,
    NotFiniteError,
    TooManyChannelsError,
    TooShortError,
    TruncatedError,
)
from dgasr.records import SAMPLE_RATE_HZ, AudioReport, seconds

logger = logging.getLogger(__name__)

FULL_SCALE = 32768
"""What 1.0 is in samples of 16 bits, as decoders divide them."""


def open_audio(file: BinaryIO, name: str, config: AudioConfig) -> "AudioStream":
    """Open a recording, whatever its container; the content decides, not the name.

    Args:
        file: seekable binary file; must stay open while blocks are read.
        name: how messages call it.
        config: limits and tolerances.

    Returns:
        The recording's waveform, not yet decoded.

    Raises:
        AudioError: nothing of it is usable; the subclass says why.
    """
    source = Source(file, name.encode("utf-8", "backslashreplace").decode())
    if source.num_bytes == 0:
        raise EmptyFileError(f"{source.label}: is empty. Copy it anew from its source, or remove it.")
    claim = read_chunk_claim(source)
    if claim is not None and (claim.claimed_bytes is None or claim.is_too_small):
        decoded = open_libav(source, config, ignore_length=True)
    else:
        decoded = open_sndfile(source, claim, config.block_values) or open_libav(source, config)
    _check_facts(decoded, source.label, config)
    return AudioStream(decoded, source.label, config)


class AudioStream:
    """The waveform of an opened recording."""

    def __init__(self, decoded: Decoded, label: str, config: AudioConfig) -> None:
        self._decoded = decoded
        self._label = label
        self._config = config
        self._num_samples = 0

    def report(self) -> AudioReport:
        """State what the container claims and what was decoded; complete once `blocks` is used up."""
        return AudioReport(
            container=self._decoded.container,
            codec=self._decoded.codec,
            source_sample_rate_hz=self._decoded.sample_rate_hz,
            num_channels=self._decoded.num_channels,
            declared_s=self._decoded.declared_s,
            decoded_samples=self._num_samples,
        )

    def blocks(self) -> Iterator[np.ndarray]:
        """Decode the recording once, in bounded memory.

        Yields:
            Mono samples at 16 kHz, float32; the mean of all channels.  [samples]

        Raises:
            AudioError: nothing of it is usable.
            TruncatedError: after everything that could be decoded: audio is missing, or the header lies.
        """
        damage: TruncatedError | None = None
        resampler = soxr.ResampleStream(self._decoded.sample_rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32")
        channels = self._decoded.blocks
        while True:
            try:
                block = next(channels, None)
            except TruncatedError as error:
                damage, block = error, None
            mono = np.zeros(0, dtype=np.float32) if block is None else self._mono(block)
            resampled = self._resampled(resampler, mono, is_last=block is None)
            if resampled.size:
                self._num_samples += resampled.size
                yield resampled
            if block is None:
                break
        self._check_length(damage)

    def _mono(self, block: np.ndarray) -> np.ndarray:
        mono = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)
        if not np.isfinite(mono).all():
            raise NotFiniteError(
                f"{self._label}: holds samples that are NaN or infinite after {seconds(self._num_samples):.2f} s. "
                "Write it anew from its source as PCM."
            )
        return np.ascontiguousarray(mono)

    def _resampled(self, resampler: soxr.ResampleStream, mono: np.ndarray, is_last: bool) -> np.ndarray:
        if self._decoded.sample_rate_hz == SAMPLE_RATE_HZ:
            return mono
        return resampler.resample_chunk(mono, last=is_last)

    def _check_length(self, damage: TruncatedError | None) -> None:
        """Compare what was decoded with what was declared."""
        decoded_s, declared_s = seconds(self._num_samples), self._decoded.declared_s
        if self._num_samples < self._config.min_samples:
            raise TooShortError(
                f"{self._label}: holds {self._num_samples} samples at {SAMPLE_RATE_HZ} Hz, less than the "
                f"{self._config.min_samples} of one analysis window. There is nothing to transcribe; remove it."
            )
        if damage is not None:
            raise damage
        if declared_s is not None and decoded_s < declared_s - self._config.tolerance_s:
            raise TruncatedError(
                f"{self._label}: its header says {declared_s:.2f} s, but only {decoded_s:.2f} s can be decoded. "
                "They are kept; copy the file anew if its source is whole, and run the backfill."
            )
        if self._decoded.is_cut_off:
            raise TruncatedError(
                f"{self._label}: breaks off within a page after {decoded_s:.2f} s. "
                "They are kept; copy the file anew if its source is longer, and run the backfill."
            )
        if declared_s is not None and decoded_s > declared_s + self._config.tolerance_s:
            raise MisdeclaredError(
                f"{self._label}: its header says {declared_s:.2f} s, but there are {decoded_s:.2f} s; all were used. "
                "Repair the header if the surplus is no audio."
            )


def _check_facts(decoded: Decoded, label: str, config: AudioConfig) -> None:
    """Refuse what the header makes unusable, before anything is decoded."""
    rate_hz = decoded.sample_rate_hz
    if not config.min_sample_rate_hz <= rate_hz <= config.max_sample_rate_hz or decoded.num_channels < 1:
        raise InvalidHeaderError(
            f"{label}: its header claims {rate_hz} Hz and {decoded.num_channels} channels. "
            "Write the file anew from its source, or repair the header if you know the right values."
        )
    if decoded.num_channels > config.max_channels:
        raise TooManyChannelsError(
            f"{label}: has {decoded.num_channels} channels, the recipe allows {config.max_channels}. "
            "Mix it down, or raise max_channels."
        )


class WaveformDigest:
    """Hashes samples as they pass, rounded to 16 bits: the same for every lossless copy, however it comes in blocks."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def passing(self, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Hand blocks on and take note of them.

        Args:
            blocks: mono samples in [-1, 1].  [samples] each
        """
        for block in blocks:
            samples = np.clip(np.rint(block * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1)
            self._hash.update(samples.astype("<i2").tobytes())
            yield block

    def hexdigest(self) -> str:
        """Return the fingerprint of what has passed: 32 hex digits, blake2b over little-endian samples."""
        return self._hash.hexdigest()
