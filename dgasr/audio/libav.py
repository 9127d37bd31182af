"""Reading with libav: everything that comes in packets. A bad packet costs its own audio only, and times stay right."""

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame

from dgasr.audio.headers import asf_length_s, is_whole_riff, states_matroska_length, states_mp3_length
from dgasr.audio.joined import ends_inside_page, ends_with_page, has_all_pages, next_start
from dgasr.audio.source import AudioConfig, Decoded, Source, Track
from dgasr.audio.timeline import Missing, Timeline, to_array
from dgasr.audio.waveform import AUDIBLE_POWER
from dgasr.errors import AudioError, NoAudioStreamError, NoSuchTrackError, TruncatedError, UnknownFormatError
from dgasr.records import Gap

CONTAINERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dts,eac3,flac,flv,gsm,loas,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,"
    "mp3,mpeg,mpegts,mpc,mpc8,nistsphere,ogg,rm,tak,tta,voc,w64,wav,wv,xwma"
)
"""What may be opened. Playlists may not: they would make libav read other files and addresses than this recording."""

GUESSES_DURATION = ("aac", "ac3", "amr", "amrnb", "amrwb", "dts", "eac3", "gsm", "loas", "mpeg", "mpegts", "voc")
"""Containers that count no audio: libav divides their size by a bit rate."""

BARE_STREAMS = ("aac", "ac3", "eac3", "loas", "mp3")
"""Containers that do not say how much of their first frame is priming; others do, or players show times with it."""

PRIMING_SAMPLES = {
    "mp3float": 576 + 529,
    "mp3": 576 + 529,
    "mp2": 481,
    "aac": 1024,
    "aac_latm": 1024,
    "ac3": 256,
    "eac3": 256,
}
"""Samples before the first of audio, which libav's own encoders bear out (docs/experiments.md, 2026-11-29).

Source: MP3: LAME's technical FAQ (the delay of its encoder by default, and of any decoder); AAC: ISO/IEC 14496-3 (the
first frame overlaps the second; some encoders put two before it); AC-3: ATSC A/52 (half a block of its transform); MP2:
measured.
"""

ENCRYPTED_TAGS = ("enca", "drms")
"""Sample entries of protected audio in MP4 (ISO/IEC 14496-12, section 8.12; Apple's FairPlay)."""

LIVE_CONTAINERS = ("asf", "avi", "flv", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "mpegts", "rm")
"""Containers that live recorders write: where nothing was sent, timestamps jump. Ogg is one if no page is missing."""

PAUSING_CODECS = {"amrnb": 8, "amrwb": 9, "amr_nb": 8, "amr_wb": 9}
"""Codecs that leave out silence, and the first of their frame types that holds no speech (3GPP TS 26.101, 26.201)."""

MOST_AMBIGUOUS_S = 0.05
"""Where a file begins later, its length counts from zero or from there: Matroska's by libav and mkvmerge, and FLV's."""

PROBED_S = 120.0
"""How much of several tracks is decoded to find the one on which somebody speaks; more, where nobody does by then."""

RISE_AND_FALL = 4.0
"""Ratio of the most to the least power within a second of speech: 6 dB. Hum and noise stay below 3 dB."""


def open_libav(source: Source, config: AudioConfig, track: Track, *, ignore_length: bool = False) -> Decoded:
    """Open a recording with libav.

    `track` is a number, `auto` for the track on which somebody speaks, or `each` for the first that can be read.
    `ignore_length` reads a WAV file to its end, whatever its header says. UnknownFormatError where there is no decoder
    for this container or codec, or the audio is encrypted; NoAudioStreamError; NoSuchTrackError; AudioError where the
    container's header is damaged.
    """
    container = _open(source, ignore_length)
    tracks = _tracks(container, source)
    numbers = {stream.index: number for number, stream in enumerate(container.streams.audio)}
    readable = sorted(numbers[stream.index] for stream in tracks)
    if isinstance(track, int):
        index = _numbered(container, tracks, track, source)
    elif track == "each":
        index = container.streams.audio[readable[0]].index
    else:
        index = tracks[0].index
        if len(tracks) > 1:
            index = _spoken(container, tracks)
            container.close()
            container = _open(source, ignore_length)
    stream = container.streams[index]
    codec, name = stream.codec_context, container.format.name
    start_s = None if container.start_time is None else container.start_time / av.time_base
    declared_s = _declared_s(container, stream, start_s, source)
    reached = [0]
    timeline = Timeline(
        label=source.label,
        sample_rate_hz=codec.sample_rate,
        num_channels=codec.channels,
        start_s=start_s,
        declared_s=declared_s,
        # A header that counts the priming makes libav leave it out, and begin later.
        priming=PRIMING_SAMPLES.get(codec.name, 0) if name in BARE_STREAMS and not stream.start_time else 0,
        missing=lambda: _missing(name, codec.name, source),
        has_timestamps=name not in BARE_STREAMS,
        config=config,
    )
    return Decoded(
        container=name,
        codec=codec.name,
        sample_rate_hz=codec.sample_rate,
        num_channels=codec.channels,
        declared_s=declared_s,
        is_cut_off=name == "ogg" and ends_inside_page(source),
        blocks=_grouped(timeline.align(_frames(container, stream, source, reached)), config.block_values),
        audio_track=numbers[index],
        num_audio_tracks=len(numbers),
        next_start=lambda: next_start(source, reached[0]),
        likely_s=source.num_bytes * 8 / codec.bit_rate if ignore_length and codec.bit_rate else 0.0,
        unreadable_tracks=tuple(number for number in range(len(numbers)) if number not in readable),
    )


def _missing(container: str, codec: str, source: Source) -> Missing:
    """Say what it means that timestamps jump ahead."""
    if codec in PAUSING_CODECS:
        return "pause"
    is_live = container in LIVE_CONTAINERS or (container == "ogg" and has_all_pages(source))
    return "not_sent" if is_live else "lost"


class _Pipe:
    """Bytes that can only be read in turn."""

    def __init__(self, source: Source) -> None:
        self.read = source.read


def _open(source: Source, ignore_length: bool) -> Any:
    source.seek(0)
    options = {"format_whitelist": CONTAINERS} | ({"ignore_length": "1"} if ignore_length else {})
    try:
        # Where the length is no guide, libav would look for chunks behind it, eight bytes a step, if it could seek.
        file = _Pipe(source) if ignore_length else source
        return av.open(file, mode="r", options=options, metadata_errors="replace")
    except (av.FFmpegError, ValueError) as error:
        source.check()
        raise UnknownFormatError(
            f"{source.label}: no decoder knows this container, or its header is damaged "
            f"({getattr(error, 'strerror', error)}). Convert it to FLAC, and transcribe that."
        ) from error


def _tracks(container: Any, source: Source) -> list[Any]:
    """List the audio tracks that can be decoded, the container's default one first."""
    source.check()
    if not container.streams.audio:
        if len(container.streams) == 0:
            raise AudioError(f"{source.label}: its header is damaged or cut off: no stream is left. Copy it anew.")
        raise NoAudioStreamError(f"{source.label}: holds no audio, only {container.streams[0].type}. Remove it.")
    default = container.streams.best("audio")
    tracks = sorted(container.streams.audio, key=lambda track: track is not default)
    usable = [track for track in tracks if track.codec_context is not None and _tag(track) not in ENCRYPTED_TAGS]
    if not usable:
        raise UnknownFormatError(
            f"{source.label}: its audio ({_tag(tracks[0])}) is encrypted or of a codec that no decoder knows. "
            "Get it without protection, or convert it to FLAC."
        )
    return usable


def _numbered(container: Any, tracks: list[Any], number: int, source: Source) -> int:
    """Return the index of an audio track by its number."""
    if number >= len(container.streams.audio):
        raise NoSuchTrackError(
            f"{source.label}: has {len(container.streams.audio)} audio tracks, counted from 0, and --track {number} is "
            "not one of them. Choose another, or `auto`."
        )
    stream = container.streams.audio[number]
    if stream not in tracks:
        raise UnknownFormatError(
            f"{source.label}: its audio track {number} ({_tag(stream)}) is encrypted or of a codec that no decoder "
            "knows. Choose another, or `auto`."
        )
    return int(stream.index)


def _tag(track: Any) -> str:
    """Return a track's codec tag; that of a WAV or AVI file is a number that need not be text."""
    try:
        return "unknown" if track.codec_context is None else track.codec_context.codec_tag
    except UnicodeDecodeError:
        return "not text"


class _Sounding:
    """How long there is sound on a track, and how long it rises and falls as speech does."""

    def __init__(self) -> None:
        self.sounding_s = self.speaking_s = 0.0
        self._collected_s, self._least, self._most = 0.0, np.inf, 0.0

    def add(self, samples: np.ndarray, sample_rate_hz: int) -> None:
        """Listen to what comes next; [frames, channels]."""
        # Parts are empty in a frame without samples and at rates below 20 Hz; numpy would warn of them on a terminal.
        for part in filter(len, np.array_split(samples, max(1, len(samples) * 20 // sample_rate_hz))):
            power, duration_s = float(np.mean(np.square(part, dtype=np.float64))), len(part) / sample_rate_hz
            self.sounding_s += duration_s * (power > AUDIBLE_POWER)
            self._least, self._most = min(self._least, power), max(self._most, power)
            self._collected_s += duration_s
            if self._collected_s >= 1.0:
                is_speech = self._most > max(AUDIBLE_POWER, RISE_AND_FALL * self._least)
                self.speaking_s += self._collected_s * is_speech
                self._collected_s, self._least, self._most = 0.0, np.inf, 0.0


def _spoken(container: Any, tracks: list[Any]) -> int:
    """Find the index of the track that speaks, or else sounds, for most of the beginning; the first of equal ones."""
    heard = {track.index: _Sounding() for track in tracks}
    with suppress(IndexError, av.FFmpegError):  # what ends the reading is told of when it is read for good
        for packet in container.demux(tracks):
            with suppress(av.FFmpegError):
                for frame in packet.decode():
                    heard[packet.stream_index].add(to_array(frame), frame.sample_rate)
            is_probed = packet.pts is not None and packet.pts * packet.time_base > PROBED_S
            if is_probed and any(track.speaking_s for track in heard.values()):
                break
    lengths_s = {index: track.speaking_s + track.sounding_s / 1000 for index, track in heard.items()}
    # A tenth more is no reason to leave the container's own choice.
    lengths_s[tracks[0].index] *= 1.1
    return max(lengths_s, key=lambda index: lengths_s[index])


def _declared_s(container: Any, stream: Any, start_s: float | None, source: Source) -> float | None:
    """Return how long the header says the recording is, from its start; `None` where it says nothing."""
    name = container.format.name
    if name in GUESSES_DURATION or (name == "mp3" and not states_mp3_length(source)):
        return None
    if name == "asf":
        return asf_length_s(source) if len(container.streams) == 1 else None
    if name == "avi" and is_whole_riff(source):
        return None  # its count includes blocks in which nothing was written, and none is missing
    if name == "ogg" and not ends_with_page(source):
        return None
    if name == "matroska,webm" and not states_matroska_length(source):
        return None
    if not stream.duration:
        # The container's own duration is that of its longest stream: of a video that goes on, it says nothing of audio.
        end_s = _tagged_s(stream) or (container.duration or 0) / av.time_base * (len(container.streams) == 1)
        begins_late_s = max(0.0, start_s or 0.0)
        writers = [text for tag, text in container.metadata.items() if tag.lower() == "encoder"]
        is_by_libav = name == "matroska,webm" and any(text.startswith("Lavf") for text in writers)
        is_ambiguous = begins_late_s > MOST_AMBIGUOUS_S and not is_by_libav
        return end_s - begins_late_s if end_s and not is_ambiguous else None
    begins_s = 0.0 if start_s is None or stream.start_time is None else stream.start_time * stream.time_base - start_s
    if name == "ogg" and stream.codec_context.name in ("opus", "libopus"):
        return float(stream.duration * stream.time_base) - max(0.0, start_s or 0.0)  # its last page's position
    # Of an AVI file libav fits the duration to what is there; its count of frames is the header's.
    length = stream.frames or stream.duration if name == "avi" else stream.duration
    return float(length * stream.time_base + max(0.0, begins_s))


def _tagged_s(stream: Any) -> float:
    """Return where a track ends by its own tag, which Matroska's writers leave; 0 without one."""
    found = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3]) if found else 0.0


def _frames(container: Any, stream: Any, source: Source, reached: list[int]) -> Iterator[AudioFrame | str]:
    """Decode packets in turn; a text, what libav says, stands for one that cannot be decoded.

    `reached[0]` becomes the second byte of the last one that can: of FLAC it has all in it that follows. What cannot be
    decoded behind it is no loss where another recording begins there.
    """
    source.furthest = 0
    bad: list[str] = []
    first_pause_type = PAUSING_CODECS.get(stream.codec_context.name)
    with container:
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except IndexError:  # a packet of a stream that was not there at the beginning, as in MPEG-TS
                packets = container.demux(stream)
                continue
            except av.FFmpegError as error:
                bad.append(str(error.strerror))
                break
            if first_pause_type is not None and packet.size and (bytes(packet)[0] >> 3) & 15 >= first_pause_type:
                continue  # nothing was said: the next timestamp tells for how long
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                bad.append(str(error.strerror))
                frames = []
            if frames:
                reached[0] = max(reached[0], (packet.pos or 0) + 1)
                yield from bad
                bad = []
            yield from frames
            source.check()
        source.check()
        if bad and next_start(source, reached[0]) is None:
            yield from bad


def _grouped(blocks: Iterator[np.ndarray | Gap], block_values: int) -> Iterator[np.ndarray | Gap]:
    """Join the short blocks of packets into long ones; what costs time per block then costs little."""
    waiting: list[np.ndarray] = []
    num_values = 0
    try:
        for block in blocks:
            if not isinstance(block, Gap):
                waiting.append(block)
                num_values += block.size
            if waiting and (num_values >= block_values or isinstance(block, Gap)):
                yield np.concatenate(waiting)
                waiting, num_values = [], 0
            if isinstance(block, Gap):
                yield block
    except TruncatedError:
        if waiting:
            yield np.concatenate(waiting)
        raise
    if waiting:
        yield np.concatenate(waiting)
