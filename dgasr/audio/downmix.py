"""Channels in, one out: a mix in which what is said on any of them stays audible, or one alone. Knows samples only."""

from collections.abc import Iterator

import numpy as np

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
