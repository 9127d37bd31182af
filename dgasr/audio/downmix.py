"""A track's channels in, their mix out, second by second: one in which what is said on any channel stays audible."""

from collections.abc import Iterator

import numpy as np

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
