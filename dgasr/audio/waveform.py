"""One opened recording in; one channel of it, or their mix, out as samples at 16 kHz, compared with its header.

A mix is one in which what is said on any channel stays audible.
"""

import hashlib
from collections.abc import Callable, Iterator

import numpy as np
import soxr

from dgasr.audio.source import Decoded
from dgasr.errors import MisdeclaredError, NotFiniteError, TruncatedError
from dgasr.records import SAMPLE_RATE_HZ, Gap, seconds

FULL_SCALE = 32768
"""What 1.0 is in samples of 16 bits, as decoders divide them."""

CHUNK_S = 1.0
"""For so long one way of mixing holds; it is chosen by the chunk's own sound, whatever blocks it comes in."""

FADE_S = 0.01
"""Time in which one way of mixing turns into the next."""

CANCELLED_SHARE = 0.15
"""Channels cancel where their mean has less than this share of their power: two of them, correlated below -0.7."""

AUDIBLE_POWER = 1e-5
"""Mean square from which a channel counts as sound: -50 dB of full scale."""

ALONE_RATIO = 100.0
"""A channel is alone where the others have a hundredth of its power at most."""

UNRELATED = 0.3
"""Two channels with a smaller correlation hold different sounds."""

DIFFERING_SHARE = 0.3
"""Channels differ where they do so for this share of the time with sound."""


class OneChannel:
    """Leaves out all channels of a recording but one.

    Args:
        channel: which one, from 0.
    """

    cancelled_s = 0.0
    channels_differ = None

    def __init__(self, channel: int) -> None:
        self._channel = channel

    def mix(self, block: np.ndarray) -> Iterator[np.ndarray]:
        """Pass the channel on; [frames, channels] → [frames]."""
        yield np.ascontiguousarray(block[:, self._channel])

    def finish(self) -> Iterator[np.ndarray]:
        """Yield nothing: nothing waits."""
        return iter(())


class Downmix:
    """Mixes the channels of one recording: their mean, or the loudest one where they would cancel each other.

    Args:
        num_channels: of the recording.
        sample_rate_hz: of the recording.

    Source:
        Ours.
    """

    def __init__(self, num_channels: int, sample_rate_hz: int) -> None:
        self._num_channels = num_channels
        self._chunk = round(CHUNK_S * sample_rate_hz)
        self._fade = np.linspace(0.0, 1.0, max(1, round(FADE_S * sample_rate_hz)), dtype=np.float32)[:, None]
        self._waiting: list[np.ndarray] = []
        self._num_waiting = 0
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
        power = covariance.diagonal()
        if not np.isfinite(power).all():
            return mean  # for the caller to refuse
        before, weights = self._weights, self._weights
        if weights is None or power.max() >= AUDIBLE_POWER:
            weights = self._chosen(power, float(covariance.mean()))
        self._weights = weights
        self._note(covariance)
        mixed = mean if weights.max() < 1 else np.ascontiguousarray(chunk[:, int(weights.argmax())])
        if before is not None and not np.array_equal(before, weights):
            fade = self._fade[: len(chunk)]
            mixed[: len(fade)] = (chunk[: len(fade)] * (before + (weights - before) * fade)).sum(axis=1)
        return mixed

    def _chosen(self, power: np.ndarray, mean_power: float) -> np.ndarray:
        """Choose a weight for each channel; a channel that was chosen stays so while it is hardly less loud."""
        count = self._num_channels
        if not mean_power < CANCELLED_SHARE * power.mean():
            return np.full(count, 1 / count, np.float32)
        self._num_cancelled += power.max() >= AUDIBLE_POWER
        kept = None if self._weights is None or self._weights.max() < 1 else int(self._weights.argmax())
        loudest = kept if kept is not None and power[kept] > 0.5 * power.max() else int(power.argmax())
        return np.eye(count, dtype=np.float32)[loudest]

    def _note(self, covariance: np.ndarray) -> None:
        """Count whether the two loudest channels hold the same sound."""
        power = covariance.diagonal()
        if power.max() < AUDIBLE_POWER:
            return
        self._num_sounding += 1
        second, first = np.argsort(power)[-2:]
        if power[first] > ALONE_RATIO * power[second]:
            self._num_alone[first] += 1
        else:
            related = abs(covariance[first, second]) >= UNRELATED * np.sqrt(power[first] * power[second])
            self._num_unrelated += not related


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

    def pieces(self, tolerance_s: float) -> Iterator[np.ndarray | Gap]:
        """Decode, mix and resample it, keeping the positions behind gaps.

        Args:
            tolerance_s: how far decoded and declared duration may differ.

        Yields:
            Mono samples, float32 [samples], and the gaps between them.

        Raises:
            NotFiniteError: at samples that are none.
            TruncatedError: after everything that could be decoded: audio is missing, or the header lies.
        """
        has_channel = self._channel is None or self._channel < self._decoded.num_channels
        for piece in self._resampled() if has_channel else self._absent():
            self._num_samples += piece.num_samples if isinstance(piece, Gap) else piece.size
            yield piece
        self._check_length(tolerance_s)

    def _blocks(self) -> Iterator[np.ndarray | Gap]:
        for block in self._decoded.blocks:
            if isinstance(block, np.ndarray):
                self._note_block(block.nbytes, len(block) / self._decoded.sample_rate_hz)
            yield block

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
        downmix = Downmix(decoded.num_channels, decoded.sample_rate_hz) if channel is None else OneChannel(channel)
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
        if decoded.num_bytes_unread:
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
