"""From decoded packets to one gapless waveform whose positions agree with the container's timestamps."""

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Literal

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler

from dgasr.audio.source import AudioConfig
from dgasr.errors import DamagedError, TruncatedError, UnknownFormatError
from dgasr.records import Gap

FULL_SCALES = {"u1": 2.0**7, "i2": 2.0**15, "i4": 2.0**31, "i8": 2.0**63}
"""Full scale of libav's integer samples by numpy's type codes; unsigned ones lie around half of theirs."""


SHORTEST_GAP_S = 1.0
"""Where less than this is missing, silence takes its place: a word may go on behind it."""

LEAST_JUMP_BACK_S = 1.0
"""Timestamps that run back by less are rounded badly; by more, they belong to another recording."""

Missing = Literal["lost", "not_sent", "pause"]
"""What a jump of timestamps means: damage; that a live recorder got nothing; that a codec left out silence."""


class Timeline:
    """Turns the frames of one audio stream into samples, with gaps where there are none.

    Where timestamps run ahead, audio is missing: a gap or silence takes its place, so that later times stay right.

    Args:
        label: how messages call the recording.
        sample_rate_hz: rate that all samples are brought to.
        num_channels: channels that all samples are brought to.
        start_s: timestamp at which the recording begins, as players show it; the first frame's where `None`.
        declared_s: duration by the header, from there; the padding after it in the last frame is cut off.
        missing: says what a jump of the timestamps means in this container; asked at the first one.
        has_timestamps: whether the container holds any; otherwise libav makes them up, of a constant sample rate.
        priming: samples before the first of audio, where the decoder does not leave them out itself.
        config: tolerances.
    """

    def __init__(
        self,
        *,
        label: str,
        sample_rate_hz: int,
        num_channels: int,
        start_s: float | None,
        declared_s: float | None,
        missing: Callable[[], Missing],
        has_timestamps: bool,
        priming: int,
        config: AudioConfig,
    ) -> None:
        self._label = label
        self._rate_hz = sample_rate_hz
        self._num_channels = num_channels
        self._declared = None if declared_s is None else round(declared_s * sample_rate_hz)
        self._missing = cache(missing)
        self._has_timestamps = has_timestamps
        self._priming = priming
        self._config = config
        self._resamplers: dict[tuple[int, str], AudioResampler] = {}
        self._origin = None if start_s is None else round(start_s * sample_rate_hz)
        self._is_first = True
        self._position = 0
        self._lost = 0
        self._cause = ""
        self._jumps: list[str] = []

    def align(self, frames: Iterable[AudioFrame | str | None]) -> Iterator[np.ndarray | Gap]:
        """Yield the samples of all frames, in order, with gaps where audio is missing.

        Args:
            frames: decoded frames; for a packet that could not be decoded what the decoder says of it, if anything.

        Yields:
            Samples in [-1, 1], float32 [frames, channels], and gaps.

        Raises:
            UnknownFormatError: not one packet could be decoded.
            DamagedError: after all samples: some of them stand for lost audio, or the timestamps contradict each other.
            TruncatedError: after all samples: the last packet is damaged and no header says what should be there.
        """
        held: np.ndarray | None = None
        num_bad = num_bad_since = 0
        for frame in frames:
            samples = self._samples(frame) if isinstance(frame, AudioFrame) else frame
            if not isinstance(frame, AudioFrame) or not isinstance(samples, np.ndarray):
                self._cause = self._cause or (f", the first of them: {samples}" if samples else "")
                num_bad, num_bad_since = num_bad + 1, num_bad_since + 1
                continue
            gap = self._gap(frame, num_bad_since > 0)
            if held is not None:
                yield held
            yield from self._fill(gap)
            held, num_bad_since = self._without_priming(samples), 0
            self._position += gap + len(held)
        if held is None:
            self._refuse(num_bad)
            return
        yield self._without_padding(held)
        self._check_loss(num_bad, num_bad_since)

    def _gap(self, frame: AudioFrame, is_after_bad: bool) -> int:
        """Count the samples missing before a frame."""
        if frame.pts is None or frame.time_base is None:
            return 0
        stamp = round(frame.pts * frame.time_base * self._rate_hz)
        if self._is_first:
            # Priming of the codec comes before the start, and is no audio.
            self._origin = stamp if self._origin is None else min(self._origin, stamp)
            self._is_first = False
            self._origin += self._priming
        assert self._origin is not None
        is_start = self._position == 0
        gap = stamp - self._origin - self._position
        if not self._has_timestamps and not is_after_bad:
            self._origin += gap
            return 0
        gap = max(gap, 0) if is_start else gap  # priming may take several frames
        if abs(gap) <= self._config.tolerance_s * self._rate_hz and not ((is_after_bad or is_start) and gap > 0):
            return 0
        if gap < 0 or gap > self._config.max_gap_s * self._rate_hz:
            self._origin += gap
            if gap > 0 or -gap > LEAST_JUMP_BACK_S * self._rate_hz:
                self._jumps.append(f"{gap / self._rate_hz:+.2f} s after {self._position / self._rate_hz:.2f} s")
            return 0
        if is_after_bad or (not is_start and self._missing() == "lost"):
            self._lost += gap
        return gap

    def _fill(self, num_samples: int) -> Iterator[np.ndarray | Gap]:
        """Yield a gap, or silence where it is short or a pause, a second at a time so that memory stays small."""
        if num_samples >= SHORTEST_GAP_S * self._rate_hz and self._missing() != "pause":
            yield Gap(num_samples=num_samples)
            return
        for start in range(0, num_samples, self._rate_hz):
            yield np.zeros((min(self._rate_hz, num_samples - start), self._num_channels), dtype=np.float32)

    def _samples(self, frame: AudioFrame) -> np.ndarray | str:
        """Turn a frame into float32 samples, [frames, channels], at the stream's rate and channels, or say why not."""
        if frame.sample_rate == self._rate_hz and frame.layout.nb_channels == self._num_channels:
            return to_array(frame)
        key = (frame.sample_rate, frame.layout.name)
        if key not in self._resamplers:
            layout = {1: "mono", 2: "stereo"}.get(self._num_channels, f"{self._num_channels}C")
            self._resamplers[key] = AudioResampler(format="fltp", layout=layout, rate=self._rate_hz)
        stamp, frame.pts = frame.pts, None
        try:
            parts = [to_array(part) for part in self._resamplers[key].resample(frame)]
        except av.FFmpegError as error:
            return str(error.strerror)
        frame.pts = stamp
        return np.concatenate(parts) if parts else np.zeros((0, self._num_channels), dtype=np.float32)

    def _without_priming(self, samples: np.ndarray) -> np.ndarray:
        """Leave out what the encoder put before the audio; it may be longer than a frame."""
        num_left_out = min(self._priming, len(samples))
        self._priming -= num_left_out
        return samples[num_left_out:]

    def _without_padding(self, last: np.ndarray) -> np.ndarray:
        """Cut off what the encoder padded its last frame with."""
        excess = 0 if self._declared is None else self._position - self._declared
        return last[:-excess] if 0 < excess < len(last) else last

    def _refuse(self, num_bad: int) -> None:
        if num_bad:
            raise UnknownFormatError(
                f"{self._label}: none of its {num_bad} packets can be decoded{self._cause}. The audio is encrypted or "
                "damaged. Get it without protection, or copy it anew."
            )

    def _check_loss(self, num_bad: int, num_bad_at_end: int) -> None:
        if self._lost > self._config.tolerance_s * self._rate_hz:
            raise DamagedError(
                f"{self._label}: {self._lost / self._rate_hz:.2f} s in it are lost or damaged ({num_bad} packets"
                f"{self._cause}) and were taken for silence. Copy the file anew if its source has them, and run "
                "the backfill."
            )
        if self._jumps:
            raise DamagedError(
                f"{self._label}: its timestamps jump {len(self._jumps)} times, by {', '.join(self._jumps[:3])}. "
                "All of its audio was read, but times after a jump may be wrong. Write it anew (remux) if they matter."
            )
        if num_bad_at_end and self._declared is None:
            raise TruncatedError(
                f"{self._label}: breaks off within a packet after {self._position / self._rate_hz:.2f} s. "
                "Copy it anew if its source is longer, and run the backfill."
            )


def to_array(frame: AudioFrame) -> np.ndarray:
    """Return a frame's samples in [-1, 1], float32.  [frames, channels]"""
    values = frame.to_ndarray()
    code = values.dtype.str[1:]
    if code in FULL_SCALES:
        scale = np.float32(1.0 / FULL_SCALES[code])
        values = values.astype(np.float32) * scale - (1.0 if code == "u1" else 0.0)
    samples = values.T if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels)
    return np.asarray(samples, dtype=np.float32)
