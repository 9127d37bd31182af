"""One opened recording in; one channel of it, or their mix, out as samples at 16 kHz, compared with its header.

Channels are mixed second by second, so that what is said on any of them stays audible.
"""

import hashlib
from collections.abc import Callable, Iterator

import numpy as np
import soxr

from dgasr.audio.source import Decoded
from dgasr.errors import MisdeclaredError, NotFiniteError, TruncatedError
from dgasr.records import SAMPLE_RATE_HZ, Gap, seconds

CHUNK_S = 1.0
"""For so long one way of mixing holds; it is chosen by the chunk's own sound, whatever blocks it comes in."""

FADE_S = 0.01
"""Time in which one way of mixing turns into the next."""

CANCELLED_SHARE = 0.3
"""Channels cancel where their mean has less than this share of the power that the mean of unrelated ones would have:
two of them, correlated below -0.7."""

AUDIBLE_POWER = 1e-5
"""Mean square of a second or less from which a channel or track counts as sound: -50 dB of full scale."""

ALONE_RATIO = 100.0
"""A channel is alone where the others have a hundredth of its power at most, until one has four times that: levels near
the bound are not to switch every second."""

UNRELATED = 0.3
"""Two channels with a smaller correlation hold different sounds."""

ECHO = 0.6
"""Two channels hold the same sound, one of them later, where they are correlated so at some delay: the voices of two
people reached 0.4."""

LONGEST_ECHO_S = 0.05
ECHO_RATE_HZ = 4000
"""Delays that are looked for, and the rate at which: voices have most of their power below half of it."""

DIFFERING_SHARE = 0.3
"""Channels differ where they do so for this share of the time with sound."""


class Downmix:
    """Mixes the channels of one recording: the mean of those with sound, each turned so that none cancels another.

    Left out are channels that are silent beside the loudest, which would only make it quieter, and one that is its
    echo, which would colour it. The method is ours.
    """

    def __init__(self, num_channels: int, sample_rate_hz: int) -> None:
        self._num_channels = num_channels
        self._chunk = round(CHUNK_S * sample_rate_hz)
        self._fade = np.linspace(0.0, 1.0, max(1, round(FADE_S * sample_rate_hz)), dtype=np.float32)[:, None]
        self._echo_step = max(1, sample_rate_hz // ECHO_RATE_HZ)
        self._longest_echo = round(LONGEST_ECHO_S * sample_rate_hz / self._echo_step)
        self._waiting: list[np.ndarray] = []
        self._num_waiting = 0
        self._loudest = 0
        self._signs = np.ones(num_channels, np.float32)
        self._is_heard = np.ones(num_channels, bool)
        self._weights: np.ndarray | None = None
        self._num_cancelled = self._num_sounding = self._num_unrelated = 0
        self._num_alone = np.zeros(num_channels, int)

    @property
    def cancelled_s(self) -> float:
        """Time in which the mean would have cancelled the sound."""
        return self._num_cancelled * CHUNK_S

    @property
    def channels_differ(self) -> bool:
        """Whether different voices speak on the channels, at once or in turn."""
        in_turn = self._num_alone.sum() - self._num_alone.max()
        return bool(self._num_unrelated + in_turn > DIFFERING_SHARE * self._num_sounding)

    def mix(self, block: np.ndarray) -> Iterator[np.ndarray]:
        """Take samples in, and yield what can be mixed by now; [frames, channels] → [frames]."""
        if self._num_channels == 1:
            yield np.ascontiguousarray(block[:, 0])
            return
        self._waiting.append(block)
        self._num_waiting += len(block)
        if self._num_waiting < self._chunk:
            return
        joined = np.concatenate(self._waiting)
        num_whole = len(joined) // self._chunk * self._chunk
        for start in range(0, num_whole, self._chunk):
            yield self._mixed(joined[start : start + self._chunk])
        self._waiting, self._num_waiting = [joined[num_whole:]], len(joined) - num_whole

    def finish(self) -> Iterator[np.ndarray]:
        """Yield what waits for the rest of its chunk."""
        if self._num_waiting:
            yield self._mixed(np.concatenate(self._waiting))
        self._waiting, self._num_waiting = [], 0

    def _mixed(self, chunk: np.ndarray) -> np.ndarray:
        mean = chunk.mean(axis=1, dtype=np.float32)
        covariance = np.atleast_2d(np.cov(chunk, rowvar=False, bias=True))  # a constant offset is no sound
        if not np.isfinite(covariance).all():
            return mean  # for the caller to refuse
        before = self._weights
        weights = self._weights = self._chosen(chunk, covariance)
        mixed = mean if (weights == weights[0]).all() else (chunk * weights).sum(axis=1)
        if before is not None and not np.array_equal(before, weights):
            fade = self._fade[: len(chunk)]
            mixed[: len(fade)] = (chunk[: len(fade)] * (before + (weights - before) * fade)).sum(axis=1)
        return mixed

    def _chosen(self, chunk: np.ndarray, covariance: np.ndarray) -> np.ndarray:
        """Choose a weight for each channel, and count what the channels hold."""
        power = covariance.diagonal()
        if power.max() > 0:
            if power[self._loudest] < 0.5 * power.max():  # the one that was stays so while it is hardly less loud
                self._loudest = int(power.argmax())
            scale = np.sqrt(power * power[self._loudest])
            related = np.divide(covariance[self._loudest], scale, out=np.zeros_like(power), where=scale > 0)
            is_clear = np.abs(related) > UNRELATED
            self._signs[is_clear] = (self._signs[self._loudest] * np.sign(related))[is_clear]
            self._is_heard = power * np.where(self._is_heard, ALONE_RATIO, ALONE_RATIO / 4) >= power[self._loudest]
            self._note(chunk, covariance, related)
        weights = self._signs * self._is_heard
        return weights / np.float32(self._is_heard.sum())

    def _note(self, chunk: np.ndarray, covariance: np.ndarray, related: np.ndarray) -> None:
        """Count whether the two loudest channels hold the same sound, and leave the second out where it is an echo."""
        first, power = self._loudest, covariance.diagonal()
        if power.max() < AUDIBLE_POWER or self._num_channels == 1:
            return
        self._num_sounding += 1
        self._num_cancelled += covariance.mean() < CANCELLED_SHARE * power.sum() / self._num_channels**2
        second = int(np.where(np.arange(self._num_channels) == first, -1.0, power).argmax())
        if power[first] > ALONE_RATIO * power[second]:
            self._num_alone[first] += 1
        elif self._is_heard[second] and abs(related[second]) < ECHO and self._is_echo(chunk[:, [first, second]]):
            self._is_heard[second] = False
        else:
            self._num_unrelated += abs(related[second]) < UNRELATED

    def _is_echo(self, pair: np.ndarray) -> bool:
        """Say whether two channels hold the same sound at different times; [frames, 2]."""
        step, lag = self._echo_step, self._longest_echo
        if len(pair) < step:
            return False  # a recording's last chunk may be a few samples
        slow = pair[: len(pair) // step * step].reshape(-1, step, 2).mean(axis=1, dtype=np.float64)
        slow -= slow.mean(axis=0)
        spectra = np.fft.rfft(slow, len(slow) + lag, axis=0)
        correlation = np.abs(np.fft.irfft(spectra[:, 0] * spectra[:, 1].conj(), len(slow) + lag))
        strongest = max(correlation[: lag + 1].max(), correlation[-lag:].max())
        return bool(strongest > ECHO * np.sqrt(np.prod(np.square(slow).sum(axis=0))))


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
