"""One opened recording in; one channel of it, or their mix, out as samples at 16 kHz, compared with its header."""

import hashlib
from collections.abc import Callable, Iterator

import numpy as np
import soxr

from dgasr.audio.downmix import Downmix
from dgasr.audio.source import Decoded
from dgasr.errors import MisdeclaredError, NotFiniteError, TruncatedError
from dgasr.records import SAMPLE_RATE_HZ, Gap, seconds

FULL_SCALE = 32768
"""What 1.0 is in samples of 16 bits, as decoders divide them."""


class Waveform:
    """A channel of a recording at 16 kHz.

    Args:
        decoded: the recording; its blocks are used up.
        channel: which channel, from 0; `None` for the mix. Where it lacks the channel, its length becomes a gap.
        label: how messages call the file.
        note_block: told of each decoded block's bytes and length in seconds; raises where that is too much.
    """

    def __init__(
        self, decoded: Decoded, channel: int | None, label: str, note_block: Callable[[int, float], None]
    ) -> None:
        self._decoded, self._channel, self._label, self._note_block = decoded, channel, label, note_block
        self._num_samples = 0
        self.cancelled_s = 0.0
        """Time in which the channels' mean would have cancelled the sound; known once `pieces` is used up."""
        self.channels_differ: bool | None = None
        """Whether different voices are on the channels; `None` where they were not mixed."""
        self.next_start: int | None = None
        """Byte at which another recording begins that this decoder did not read; known then too."""

    def pieces(self, tolerance_s: float) -> Iterator[np.ndarray | Gap]:
        """Decode, mix and resample it to mono float32, [samples], keeping the positions behind gaps.

        NotFiniteError at samples that are none. TruncatedError, after everything that could be decoded, where audio is
        missing or its length differs from the declared one by more than the tolerance.
        """
        has_channel = self._channel is None or self._channel < self._decoded.num_channels
        for piece in self._resampled() if has_channel else self._absent():
            self._num_samples += piece.num_samples if isinstance(piece, Gap) else piece.size
            yield piece
        self._check_length(tolerance_s)

    def _blocks(self) -> Iterator[np.ndarray | Gap]:
        try:
            for block in self._decoded.blocks:
                if isinstance(block, np.ndarray):
                    self._note_block(block.nbytes, len(block) / self._decoded.sample_rate_hz)
                    block = block if self._channel is None else block[:, self._channel : self._channel + 1]
                yield block
        except TruncatedError:
            self.next_start = self._decoded.next_start()
            raise
        self.next_start = self._decoded.next_start()

    def _absent(self) -> Iterator[Gap]:
        """Decode all of it to learn how long it is."""
        num_frames, damage = 0, None
        try:
            for block in self._blocks():
                num_frames += block.num_samples if isinstance(block, Gap) else len(block)
        except TruncatedError as error:
            damage = error
        yield Gap(num_samples=round(num_frames * SAMPLE_RATE_HZ / self._decoded.sample_rate_hz))
        if damage is not None:
            raise damage

    def _resampled(self) -> Iterator[np.ndarray | Gap]:
        decoded, channel = self._decoded, self._channel
        num_in = num_out = 0
        damage: TruncatedError | None = None
        downmix = Downmix(decoded.num_channels if channel is None else 1, decoded.sample_rate_hz)
        resampler = _resampler(decoded.sample_rate_hz)
        blocks = self._blocks()
        while True:
            try:
                block = next(blocks, None)
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
                    yield resampled
            if isinstance(block, Gap):
                num_in += block.num_samples
                gap = round(num_in * SAMPLE_RATE_HZ / decoded.sample_rate_hz) - num_out
                num_out += gap
                yield Gap(num_samples=gap)
                resampler = _resampler(decoded.sample_rate_hz)
            if block is None:
                break
        if channel is None:
            self.cancelled_s, self.channels_differ = downmix.cancelled_s, downmix.channels_differ
        if damage is not None:
            raise damage

    def _check_finite(self, mono: np.ndarray) -> None:
        if not np.isfinite(mono).all():
            raise NotFiniteError(
                f"{self._label}: holds samples that are NaN or infinite after {seconds(self._num_samples):.2f} s. "
                "Write it anew from its source as PCM."
            )

    def _check_length(self, tolerance_s: float) -> None:
        """Compare what was decoded with what was declared."""
        decoded = self._decoded
        if self.next_start is not None and decoded.container == "ogg":
            return  # its length and its end were read from the file's last page, which is another recording's
        decoded_s, declared_s = seconds(self._num_samples), decoded.declared_s
        if decoded.share_present < 1:
            declared_s = max(declared_s or 0.0, decoded_s / decoded.share_present)
        if declared_s is not None and decoded_s < declared_s - tolerance_s:
            raise TruncatedError(
                f"{self._label}: its header says {declared_s:.2f} s, but only {decoded_s:.2f} s can be decoded. "
                "They are kept; copy the file anew if its source is whole, and run the backfill."
            )
        if decoded.is_cut_off:
            raise TruncatedError(
                f"{self._label}: breaks off within a page after {decoded_s:.2f} s. "
                "They are kept; copy the file anew if its source is longer, and run the backfill."
            )
        if declared_s is not None and decoded_s > declared_s + tolerance_s:
            raise MisdeclaredError(
                f"{self._label}: its header says {declared_s:.2f} s, but there are {decoded_s:.2f} s; all were used. "
                "Repair the header if the surplus is no audio."
            )
        if decoded.num_bytes_unread and self.next_start is None:
            raise TruncatedError(
                f"{self._label}: behind its audio {decoded.num_bytes_unread} bytes were not read: a second "
                "chunk or recording, or its header is wrong. Write it anew with a program that joins them."
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
        """Hand pieces on, mono samples in [-1, 1], [samples] each, and gaps, and take note of them."""
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
