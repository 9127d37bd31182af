"""Reading with libav: everything that comes in packets. A bad packet costs its own audio only, and times stay right."""

import logging
from collections.abc import Iterator
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame

from dgasr.audio.config import AudioConfig
from dgasr.audio.decoded import Decoded
from dgasr.audio.headers import ends_inside_ogg_page, states_mp3_length
from dgasr.audio.source import Source
from dgasr.audio.timeline import Timeline
from dgasr.errors import AudioError, NoAudioStreamError, TruncatedError, UnknownFormatError

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
