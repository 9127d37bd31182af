"""One recording as a stream of waveform blocks: choose a decoder, mix down, resample, compare with the header."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

import numpy as np
import soxr

from dgasr.audio.downmix import Downmix
from dgasr.audio.headers import read_chunk_claim
from dgasr.audio.joined import split_joined
from dgasr.audio.libav import open_libav
from dgasr.audio.sndfile import open_sndfile
from dgasr.audio.source import AudioConfig, Decoded, Source
from dgasr.errors import (
    AudioError,
    EmptyFileError,
    InvalidHeaderError,
    MisdeclaredError,
    NotFiniteError,
    TooLongError,
    TooManyChannelsError,
    TooShortError,
    TruncatedError,
)
from dgasr.records import SAMPLE_RATE_HZ, AudioReport, Gap, seconds

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
    parts = split_joined(source)
    return AudioStream(_open(parts[0], config), parts[1:], source.label, config)


def _open(source: Source, config: AudioConfig) -> Decoded:
    """Choose a decoder, and refuse what the header makes unusable before anything is decoded."""
    claim = read_chunk_claim(source)
    if claim is not None and (claim.claimed_bytes is None or claim.is_too_small):
        decoded = open_libav(source, config, ignore_length=True)
    else:
        decoded = open_sndfile(source, claim, config.block_values) or open_libav(source, config)
    rate_hz = decoded.sample_rate_hz
    if not config.min_sample_rate_hz <= rate_hz <= config.max_sample_rate_hz or decoded.num_channels < 1:
        raise InvalidHeaderError(
            f"{source.label}: its header claims {rate_hz} Hz and {decoded.num_channels} channels. "
            "Write the file anew from its source, or repair the header if you know the right values."
        )
    if decoded.num_channels > config.max_channels:
        raise TooManyChannelsError(
            f"{source.label}: has {decoded.num_channels} channels, the recipe allows {config.max_channels}. "
            "Mix it down, or raise max_channels."
        )
    return decoded if claim is None else replace(decoded, num_bytes_unread=claim.second_bytes)


class AudioStream:
    """The waveform of an opened recording.

    Args:
        first: what is read first.
        others: recordings joined behind it in the same file.
        label: how messages call the file.
        config: limits and tolerances.
    """

    def __init__(self, first: Decoded, others: list[Source], label: str, config: AudioConfig) -> None:
        self._decoded, self._others = first, others
        self._label = label
        self._config = config
        self._num_samples = 0
        self._cancelled_s = 0.0
        self._channels_differ = False

    def report(self) -> AudioReport:
        """State what the container claims and what was decoded; complete once `pieces` is used up."""
        return AudioReport(
            container=self._decoded.container,
            codec=self._decoded.codec,
            source_sample_rate_hz=self._decoded.sample_rate_hz,
            num_channels=self._decoded.num_channels,
            declared_s=None if self._others else self._decoded.declared_s,
            decoded_samples=self._num_samples,
            audio_track=self._decoded.audio_track,
            num_audio_tracks=self._decoded.num_audio_tracks,
            cancelled_s=self._cancelled_s,
            channels_differ=self._channels_differ,
        )

    def blocks(self) -> Iterator[np.ndarray]:
        """Decode the recording once as `pieces` does, with silence in place of gaps."""
        for piece in self.pieces():
            if isinstance(piece, Gap):
                for start in range(0, piece.num_samples, SAMPLE_RATE_HZ):
                    yield np.zeros(min(SAMPLE_RATE_HZ, piece.num_samples - start), dtype=np.float32)
            else:
                yield piece

    def pieces(self) -> Iterator[np.ndarray | Gap]:
        """Decode the recording once, in bounded memory.

        Yields:
            Mono samples at 16 kHz, float32 [samples], and the gaps between them.

        Raises:
            AudioError: nothing of it is usable.
            TruncatedError: after everything that could be decoded: audio is missing, or the header lies.
        """
        damage: TruncatedError | None = None
        decoded: Decoded | None = self._decoded
        waiting = list(self._others)
        while decoded is not None:
            before = self._num_samples
            try:
                yield from self._waveform(decoded)
                self._check_length(decoded, self._num_samples - before)
            except TruncatedError as error:
                damage = damage or error
            decoded = None
            if waiting:
                source = waiting.pop(0)
                try:
                    decoded = _open(source, self._config)
                except AudioError as error:
                    num_bytes = source.num_bytes + sum(other.num_bytes for other in waiting)
                    damage = damage or TruncatedError(
                        f"{self._label}: is several recordings joined in one file, of which the last {num_bytes} bytes "
                        f"were not read ({error})"
                    )
        if self._num_samples < self._config.min_samples:
            raise TooShortError(
                f"{self._label}: holds {self._num_samples} samples at {SAMPLE_RATE_HZ} Hz, less than the "
                f"{self._config.min_samples} of one analysis window. There is nothing to transcribe; remove it."
            )
        if damage is not None:
            raise damage

    def _waveform(self, decoded: Decoded) -> Iterator[np.ndarray | Gap]:
        """Mix and resample one recording, keeping the positions behind gaps."""
        self._check_duration(decoded.declared_s or 0.0)
        num_in = num_out = 0
        damage: TruncatedError | None = None
        downmix = Downmix(decoded.num_channels, decoded.sample_rate_hz)
        resampler = _resampler(decoded.sample_rate_hz)
        while True:
            try:
                block = next(decoded.blocks, None)
            except TruncatedError as error:
                damage, block = error, None
            is_end = block is None or isinstance(block, Gap)
            mixed = list(downmix.finish() if isinstance(block, Gap) or block is None else downmix.mix(block))
            for index, mono in enumerate(mixed or ([np.zeros(0, np.float32)] if is_end else [])):
                self._check_finite(mono)
                num_in += mono.size
                is_last = is_end and index == max(0, len(mixed) - 1)
                resampled = mono if resampler is None else resampler.resample_chunk(mono, last=is_last)
                if resampled.size:
                    num_out += resampled.size
                    yield from self._counted(resampled)
            if isinstance(block, Gap):
                num_in += block.num_samples
                gap = round(num_in * SAMPLE_RATE_HZ / decoded.sample_rate_hz) - num_out
                num_out += gap
                yield from self._counted(Gap(num_samples=gap))
                resampler = _resampler(decoded.sample_rate_hz)
            if block is None:
                break
        self._cancelled_s += downmix.cancelled_s
        self._channels_differ |= downmix.channels_differ
        if damage is not None:
            raise damage

    def _counted(self, piece: np.ndarray | Gap) -> Iterator[np.ndarray | Gap]:
        self._num_samples += piece.num_samples if isinstance(piece, Gap) else piece.size
        self._check_duration(seconds(self._num_samples))
        yield piece

    def _check_duration(self, duration_s: float) -> None:
        if duration_s > self._config.max_duration_s:
            raise TooLongError(
                f"{self._label}: holds at least {duration_s:.0f} s, the recipe allows max_duration_s="
                f"{self._config.max_duration_s:.0f}. Split it, or raise the limit if it is what it claims to be."
            )

    def _check_finite(self, mono: np.ndarray) -> None:
        if not np.isfinite(mono).all():
            raise NotFiniteError(
                f"{self._label}: holds samples that are NaN or infinite after {seconds(self._num_samples):.2f} s. "
                "Write it anew from its source as PCM."
            )

    def _check_length(self, decoded: Decoded, num_samples: int) -> None:
        """Compare what was decoded with what was declared."""
        decoded_s, declared_s = seconds(num_samples), decoded.declared_s
        if declared_s is not None and decoded_s < declared_s - self._config.tolerance_s:
            raise TruncatedError(
                f"{self._label}: its header says {declared_s:.2f} s, but only {decoded_s:.2f} s can be decoded. "
                "They are kept; copy the file anew if its source is whole, and run the backfill."
            )
        if decoded.is_cut_off:
            raise TruncatedError(
                f"{self._label}: breaks off within a page after {decoded_s:.2f} s. "
                "They are kept; copy the file anew if its source is longer, and run the backfill."
            )
        if declared_s is not None and decoded_s > declared_s + self._config.tolerance_s:
            raise MisdeclaredError(
                f"{self._label}: its header says {declared_s:.2f} s, but there are {decoded_s:.2f} s; all were used. "
                "Repair the header if the surplus is no audio."
            )
        if decoded.num_bytes_unread:
            raise TruncatedError(
                f"{self._label}: holds a second chunk of audio, whose {decoded.num_bytes_unread} bytes were not read. "
                "Write it anew with a program that joins the two, and run the backfill."
            )


def _resampler(sample_rate_hz: int) -> soxr.ResampleStream | None:
    """Return what brings samples to 16 kHz, or `None` where they are."""
    if sample_rate_hz == SAMPLE_RATE_HZ:
        return None
    return soxr.ResampleStream(sample_rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32")


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
