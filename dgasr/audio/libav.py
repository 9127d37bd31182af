"""Reading with libav: everything that comes in packets. A bad packet costs its own audio only, and times stay right.

Samples are placed by the container's timestamps: where they run ahead, silence stands for the audio that is missing.
"""

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler

from dgasr.audio.headers import ends_inside_ogg_page, states_mp3_length
from dgasr.audio.source import AudioConfig, Decoded, Source
from dgasr.errors import AudioError, DamagedError, NoAudioStreamError, TruncatedError, UnknownFormatError

logger = logging.getLogger(__name__)

CONTAINERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dts,eac3,flac,flv,gsm,loas,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,"
    "mp3,mpeg,mpegts,mpc,mpc8,nistsphere,ogg,rm,tak,tta,voc,w64,wav,wv,xwma"
)
"""What may be opened. Playlists may not: they would make libav read other files and addresses than this recording."""

GUESSES_DURATION = ("aac", "ac3", "amr", "amrnb", "amrwb", "dts", "eac3", "gsm", "loas", "mpeg", "mpegts")
"""Containers without a header of their own: libav divides their size by a bit rate."""

ENCRYPTED_TAGS = ("enca", "drms")
"""Sample entries of protected audio in MP4 (ISO/IEC 14496-12, section 8.12; Apple's FairPlay)."""

HAS_PAUSES = ("asf", "avi", "flv", "matroska,webm", "mpegts", "rm")
"""Containers that live recorders write: where nothing was sent, timestamps jump."""

FULL_SCALES = {"u1": 2.0**7, "i2": 2.0**15, "i4": 2.0**31, "i8": 2.0**63}
"""Full scale of libav's integer samples by numpy's type codes; unsigned ones lie around half of theirs."""


def open_libav(source: Source, config: AudioConfig, *, ignore_length: bool = False) -> Decoded:
    """Open a recording with libav.

    Args:
        source: the recording.
        config: limits and tolerances.
        ignore_length: read a WAV file to its end, whatever its header says.

    Returns:
        The opened recording.

    Raises:
        UnknownFormatError: no decoder for this container or codec, or the audio is encrypted.
        NoAudioStreamError: the container holds no audio.
        AudioError: the container's header is damaged.
    """
    source.seek(0)
    options = {"format_whitelist": CONTAINERS} | ({"ignore_length": "1"} if ignore_length else {})
    try:
        container: Any = av.open(source, mode="r", options=options, metadata_errors="replace")
    except (av.FFmpegError, ValueError) as error:
        source.check()
        raise UnknownFormatError(
            f"{source.label}: no decoder knows this container, or its header is damaged "
            f"({getattr(error, 'strerror', error)}). Convert it to FLAC, and transcribe that."
        ) from error
    stream = _audio_stream(container, source)
    codec = stream.codec_context
    name = container.format.name
    declared_s = _declared_s(container, stream, source)
    timeline = Timeline(
        label=source.label,
        sample_rate_hz=codec.sample_rate,
        num_channels=codec.channels,
        declared_s=declared_s,
        has_pauses=name in HAS_PAUSES,
        config=config,
    )
    return Decoded(
        container=name,
        codec=codec.name,
        sample_rate_hz=codec.sample_rate,
        num_channels=codec.channels,
        declared_s=declared_s,
        is_cut_off=name == "ogg" and ends_inside_ogg_page(source),
        blocks=_grouped(timeline.align(_frames(container, stream, source)), config.block_values),
    )


def _audio_stream(container: Any, source: Source) -> Any:
    """Choose the container's best audio stream, and refuse what cannot be decoded."""
    source.check()
    stream = container.streams.best("audio") or next(iter(container.streams.audio), None)
    if stream is None:
        if len(container.streams) == 0:
            raise AudioError(f"{source.label}: its header is damaged or cut off: no stream is left. Copy it anew.")
        raise NoAudioStreamError(f"{source.label}: holds no audio, only {container.streams[0].type}. Remove it.")
    codec = stream.codec_context
    tag = codec.codec_tag if codec is not None else "unknown"
    if codec is None or tag in ENCRYPTED_TAGS:
        raise UnknownFormatError(
            f"{source.label}: its audio ({tag}) is encrypted or of a codec that no decoder knows. "
            "Get it without protection, or convert it to FLAC."
        )
    return stream


def _declared_s(container: Any, stream: Any, source: Source) -> float | None:
    name = container.format.name
    if name in GUESSES_DURATION or (name == "mp3" and not states_mp3_length(source)):
        return None
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else container.duration / av.time_base


def _frames(container: Any, stream: Any, source: Source) -> Iterator[AudioFrame | None]:
    """Decode packets in turn; `None` stands for one that cannot be decoded."""
    with container:
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except av.FFmpegError as error:
                logger.debug("%s: reading stops: %s", source.label, error)
                yield None
                break
            try:
                yield from packet.decode()
            except av.FFmpegError as error:
                logger.debug("%s: a packet cannot be decoded: %s", source.label, error)
                yield None
            source.check()
        source.check()


def _grouped(blocks: Iterator[np.ndarray], block_values: int) -> Iterator[np.ndarray]:
    """Join the short blocks of packets into long ones; what costs time per block then costs little."""
    waiting: list[np.ndarray] = []
    num_values = 0
    try:
        for block in blocks:
            waiting.append(block)
            num_values += block.size
            if num_values >= block_values:
                yield np.concatenate(waiting)
                waiting, num_values = [], 0
    except TruncatedError:
        if waiting:
            yield np.concatenate(waiting)
        raise
    if waiting:
        yield np.concatenate(waiting)


class Timeline:
    """Turns the frames of one audio stream into samples.

    Where timestamps run ahead, audio is missing: silence takes its place, so that later times stay right.

    Args:
        label: how messages call the recording.
        sample_rate_hz: rate that all samples are brought to.
        num_channels: channels that all samples are brought to.
        declared_s: duration by the header; the padding after it in the last frame is cut off.
        has_pauses: whether gaps in the timestamps are usual in this container; elsewhere they are damage.
        config: tolerances.
    """

    def __init__(
        self,
        *,
        label: str,
        sample_rate_hz: int,
        num_channels: int,
        declared_s: float | None,
        has_pauses: bool,
        config: AudioConfig,
    ) -> None:
        self._label = label
        self._rate_hz = sample_rate_hz
        self._num_channels = num_channels
        self._declared = None if declared_s is None else round(declared_s * sample_rate_hz)
        self._has_pauses = has_pauses
        self._config = config
        self._resamplers: dict[tuple[int, str], AudioResampler] = {}
        self._origin: int | None = None
        self._position = 0
        self._lost = 0

    def align(self, frames: Iterable[AudioFrame | None]) -> Iterator[np.ndarray]:
        """Yield the samples of all frames, in order, with silence where audio is missing.

        Args:
            frames: decoded frames; `None` for a packet that could not be decoded.

        Yields:
            Samples in [-1, 1], float32.  [frames, channels]

        Raises:
            UnknownFormatError: not one packet could be decoded.
            DamagedError: after all samples: some of them stand for lost audio.
            TruncatedError: after all samples: the last packet is damaged and no header says what should be there.
        """
        held: np.ndarray | None = None
        num_bad = num_bad_since = 0
        for frame in frames:
            if frame is None:
                num_bad, num_bad_since = num_bad + 1, num_bad_since + 1
                continue
            gap = self._gap(frame, num_bad_since > 0)
            if held is not None:
                yield held
            yield from self._silence(gap)
            held, num_bad_since = self._samples(frame), 0
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
        if self._origin is None:
            self._origin = stamp
        gap = stamp - self._origin - self._position
        if abs(gap) <= self._config.tolerance_s * self._rate_hz and not (is_after_bad and gap > 0):
            return 0
        if gap < 0 or gap > self._config.max_gap_s * self._rate_hz:
            self._origin += gap
            return 0
        if is_after_bad or not self._has_pauses:
            self._lost += gap
        return gap

    def _silence(self, num_samples: int) -> Iterator[np.ndarray]:
        """Yield silence a second at a time, so that long gaps of many channels stay small in memory."""
        for start in range(0, num_samples, self._rate_hz):
            yield np.zeros((min(self._rate_hz, num_samples - start), self._num_channels), dtype=np.float32)

    def _samples(self, frame: AudioFrame) -> np.ndarray:
        """Turn a frame into float32 samples, [frames, channels], at the rate and channels of the stream."""
        if frame.sample_rate == self._rate_hz and frame.layout.nb_channels == self._num_channels:
            return _to_array(frame)
        key = (frame.sample_rate, frame.layout.name)
        if key not in self._resamplers:
            layout = {1: "mono", 2: "stereo"}.get(self._num_channels, f"{self._num_channels}C")
            self._resamplers[key] = AudioResampler(format="fltp", layout=layout, rate=self._rate_hz)
        frame.pts = None
        parts = [_to_array(part) for part in self._resamplers[key].resample(frame)]
        return np.concatenate(parts) if parts else np.zeros((0, self._num_channels), dtype=np.float32)

    def _without_padding(self, last: np.ndarray) -> np.ndarray:
        """Cut off what the encoder padded its last frame with."""
        excess = 0 if self._declared is None else self._position - self._declared
        return last[:-excess] if 0 < excess < len(last) else last

    def _refuse(self, num_bad: int) -> None:
        if num_bad:
            raise UnknownFormatError(
                f"{self._label}: none of its {num_bad} packets can be decoded: the audio is encrypted or damaged. "
                "Get it without protection, or copy it anew."
            )

    def _check_loss(self, num_bad: int, num_bad_at_end: int) -> None:
        if self._lost > self._config.tolerance_s * self._rate_hz:
            raise DamagedError(
                f"{self._label}: {self._lost / self._rate_hz:.2f} s in it are lost or damaged ({num_bad} packets) "
                "and were taken for silence. Copy the file anew if its source has them, and run the backfill."
            )
        if num_bad_at_end and self._declared is None:
            raise TruncatedError(
                f"{self._label}: breaks off within a packet after {self._position / self._rate_hz:.2f} s. "
                "Copy it anew if its source is longer, and run the backfill."
            )


def _to_array(frame: AudioFrame) -> np.ndarray:
    values = frame.to_ndarray()
    code = values.dtype.str[1:]
    if code in FULL_SCALES:
        scale = np.float32(1.0 / FULL_SCALES[code])
        values = values.astype(np.float32) * scale - (1.0 if code == "u1" else 0.0)
    samples = values.T if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels)
    return np.asarray(samples, dtype=np.float32)
