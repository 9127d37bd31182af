"""One recording as streams of waveform blocks: choose a decoder and channels, resample, compare with the header."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np

from dgasr.audio.headers import read_chunk_claim
from dgasr.audio.joined import end_before_next, split_joined
from dgasr.audio.libav import open_libav
from dgasr.audio.sample_range import in_range
from dgasr.audio.sndfile import open_sndfile
from dgasr.audio.source import AudioConfig, Decoded, Source, Stopwatch, Track
from dgasr.audio.waveform import Waveform
from dgasr.errors import (
    AudioError,
    EmptyFileError,
    InvalidHeaderError,
    LimitError,
    NoSuchChannelError,
    NoSuchTrackError,
    TooLargeError,
    TooLongError,
    TooManyChannelsError,
    TooShortError,
    TruncatedError,
)
from dgasr.records import SAMPLE_RATE_HZ, AudioReport, Gap, seconds

FREE_S = 3600.0
"""Audio that a file may hold however small it is, s."""


def open_audio(file: BinaryIO, name: str, config: AudioConfig) -> "AudioStream":
    """Open a recording, whatever its container, and decode nothing yet; the content decides, not the name.

    The file is seekable, and must stay open while blocks are read; messages call it by the name. AudioError where
    nothing of it is usable: the subclass says why.
    """
    label = name.encode("utf-8", "backslashreplace").decode()
    stopwatch = Stopwatch(config.limits.max_seconds_per_file_wall, label)
    with stopwatch:
        source = Source(file, label, stopwatch=stopwatch)
        if source.num_bytes == 0:
            raise EmptyFileError(f"{source.label}: is empty. Copy it anew from its source, or remove it.")
        parts = split_joined(source)
        return AudioStream(parts, _open(parts[0], config, config.track), source, config, stopwatch)


def _open(source: Source, config: AudioConfig, track: Track) -> Decoded:
    """Choose a decoder, and refuse what the header makes unusable before anything is decoded."""
    claim = read_chunk_claim(source)
    end_before_next(source)
    ignore_length = claim is not None and claim.is_riff and (claim.claimed_bytes is None or claim.is_too_small)
    sndfile = None if ignore_length else open_sndfile(source, claim, config.block_values)
    decoded = sndfile or open_libav(source, config, track, ignore_length=ignore_length)
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
    if isinstance(track, int) and track != decoded.audio_track:
        raise NoSuchTrackError(
            f"{source.label}: has one audio track, which is --track 0, not {track}. Choose that, or `auto`."
        )
    decoded = in_range(decoded, 1.0 if claim is None else claim.scale, source.label)
    if not source.states_length:
        return replace(decoded, declared_s=None)
    if claim is None:
        return decoded
    # libsndfile's length is corrected where it is read; libav's may be a guess by what is there.
    share_present = 1.0 if sndfile is not None else claim.share_present or 1.0
    if ignore_length and claim.claimed_bytes and decoded.likely_s:
        decoded = replace(decoded, declared_s=claim.claimed_bytes / source.num_bytes * decoded.likely_s)
    return replace(decoded, num_bytes_unread=claim.second_bytes, share_present=share_present)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Channel:
    """What is transcribed by itself: the mix of a track's channels, or one of them.

    Attributes:
        audio_track: which of the container's audio tracks, from 0.
        channel: which of its channels, from 0; 0 for the mix.
        pieces: mono samples at 16 kHz, float32 [samples], and the gaps between them; raises as `AudioStream.pieces`.
    """

    audio_track: int
    channel: int
    pieces: Iterator[np.ndarray | Gap]


class AudioStream:
    """The waveform of an opened recording.

    `parts` are the recordings that are joined in the file, as far as is known, mostly one, the file itself; `first` is
    the first of them, opened.
    """

    def __init__(
        self, parts: list[Source], first: Decoded, source: Source, config: AudioConfig, stopwatch: Stopwatch
    ) -> None:
        self._parts, self._first, self._config, self._stopwatch = parts, first, config, stopwatch
        self._opened: Decoded | None = first
        self._label, self._num_bytes = source.label, source.num_bytes
        self._num_samples = self._num_decoded_bytes = self._longest = self._num_transcripts = 0
        self._num_parts, self._num_channels = len(parts), 0
        self._decoded_s = self._peak = 0.0
        self._cancelled_s = 0.0
        self._channels_differ: bool | None = None
        self._corrections: dict[str, None] = {}

    def report(self) -> AudioReport:
        """State what the container claims and what was decoded; complete once `channels` is used up."""
        return AudioReport(
            container=self._first.container,
            codec=self._first.codec,
            source_sample_rate_hz=self._first.sample_rate_hz,
            num_channels=self._first.num_channels,
            declared_s=None if self._num_parts > 1 else self._first.declared_s,
            decoded_samples=self._longest,
            audio_track=None if len(self._tracks()) > 1 else self._first.audio_track,
            num_audio_tracks=self._first.num_audio_tracks,
            cancelled_s=self._cancelled_s,
            channels_differ=self._channels_differ,
            sample_correction="; ".join(self._corrections) or None,
            peak_dbfs=20 * math.log10(self._peak) if self._peak else None,
            num_transcripts=max(1, self._num_transcripts),
        )

    def channels(self) -> Iterator[Channel]:
        """Yield all that is to be transcribed by itself, in order; the file is read once for each.

        Its pieces must be used up before the next is asked for. Where a track is of no use among others, its pieces end
        with `TruncatedError`. AudioError where nothing of the recording is usable, or it lacks the channel asked for.
        """
        failures: list[AudioError] = []
        tracks = self._tracks()
        for track in tracks:
            channels: Iterable[int | None] = [None]
            failure: AudioError | None = None
            try:
                channels = self._channels_of(track)
            except AudioError as error:
                if len(tracks) == 1 or isinstance(error, LimitError):
                    raise
                failure = error
            for channel in channels:
                self._num_transcripts += 1
                pieces = self._pieces(track, channel, failure)
                yield Channel(
                    audio_track=track,
                    channel=channel or 0,
                    pieces=_kept_apart(pieces, track, failures) if len(tracks) > 1 else pieces,
                )
        if failures and len(failures) == self._num_transcripts:
            raise failures[0]

    def blocks(self) -> Iterator[np.ndarray]:
        """Decode the recording once as `pieces` does, with silence in place of gaps."""
        for piece in self.pieces():
            if isinstance(piece, Gap):
                for start in range(0, piece.num_samples, SAMPLE_RATE_HZ):
                    yield np.zeros(min(SAMPLE_RATE_HZ, piece.num_samples - start), dtype=np.float32)
            else:
                yield piece

    def pieces(self) -> Iterator[np.ndarray | Gap]:
        """Decode the recording once, in bounded memory; of several channels that `channels` yields the first.

        Mono samples at 16 kHz, float32 [samples], and the gaps between them. AudioError where nothing of it is usable,
        and TruncatedError, after everything that could be decoded, where audio is missing or the header lies.
        """
        yield from next(self.channels()).pieces

    def _tracks(self) -> Sequence[int]:
        """List the audio tracks that are read."""
        if self._config.track != "each":
            return [self._first.audio_track]
        return [n for n in range(self._first.num_audio_tracks) if n not in self._first.unreadable_tracks]

    def _channels_of(self, track: int) -> Iterable[int | None]:
        """List the channels that are read of a track; `None` is their mix."""
        wanted = self._config.channels
        if wanted == "mix":
            return [None]
        with self._stopwatch:
            self._opened = self._take(track)
            count = max(self._opened.num_channels, *(self._count_channels(part, track) for part in self._parts[1:]), 0)
        if wanted == "each":
            self._num_channels = count
            return itertools.takewhile(lambda channel: channel < self._num_channels, itertools.count())
        if wanted >= count:
            raise NoSuchChannelError(
                f"{self._label}: has {count} channels, counted from 0, and --channels {wanted} is not one of them. "
                "Choose another, `mix` or `each`."
            )
        return [wanted]

    def _count_channels(self, part: Source, track: int) -> int:
        try:
            return _open(part, self._config, track).num_channels
        except AudioError:
            return 0  # said where it is read

    def _take(self, track: int) -> Decoded:
        """Return the first part of the file, opened and not yet read."""
        opened, self._opened = self._opened, None
        if opened is not None and opened.audio_track == track and len(self._parts) == 1:
            return opened
        return _open(self._parts[0], self._config, track)

    def _pieces(self, track: int, channel: int | None, failure: AudioError | None) -> Iterator[np.ndarray | Gap]:
        """Decode a channel of a track, or say why not; the stopwatch runs while this does, and not its caller."""
        if failure is not None:
            raise failure
        self._num_samples, self._num_decoded_bytes, self._decoded_s = 0, 0, 0.0
        pieces = self._joined(track, channel)
        while True:
            # Samples that are no numbers are refused in time; numpy's warning would only be on a terminal.
            with self._stopwatch, np.errstate(over="ignore", invalid="ignore"):
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece

    def _joined(self, track: int, channel: int | None) -> Iterator[np.ndarray | Gap]:
        """Decode the recordings of a file one behind the other."""
        damage: TruncatedError | None = None
        unreadable = self._first.unreadable_tracks
        if self._config.track == "each" and unreadable:
            damage = TruncatedError(
                f"{self._label}: its audio tracks {', '.join(map(str, unreadable))} are encrypted or of a codec that "
                "no decoder knows. The others are kept."
            )
        decoded: Decoded | None = self._take(track)
        source, waiting, num_parts = self._parts[0], self._parts[1:], 1
        wanted = track if self._config.track == "each" else self._config.track
        while decoded is not None:
            try:
                self._check_duration(max(decoded.declared_s or 0.0, decoded.likely_s))
                waveform = Waveform(decoded, channel, self._label, self._note_block)
                for piece in waveform.pieces(self._config.tolerance_s):
                    self._count(piece)
                    yield piece
            except TruncatedError as error:
                damage = damage or error
            self._corrections |= dict.fromkeys(decoded.corrections)
            decoded = None
            if waveform.next_start is not None:
                waiting[:0] = split_joined(source.part(waveform.next_start, source.whole_bytes))
            if waiting:
                source = waiting.pop(0)
                num_parts += 1
                self._num_parts = max(self._num_parts, num_parts)
                try:
                    decoded = _open(source, self._config, wanted)
                    self._num_channels = max(self._num_channels, decoded.num_channels)  # counts where each is read
                except AudioError as error:
                    num_bytes = source.num_bytes + sum(other.num_bytes for other in waiting)
                    damage = damage or TruncatedError(
                        f"{self._label}: is several recordings joined in one file, of which the last {num_bytes} bytes "
                        f"were not read ({error})"
                    )
            self._cancelled_s += waveform.cancelled_s
            if waveform.channels_differ is not None:
                self._channels_differ = bool(self._channels_differ) or waveform.channels_differ
        if self._num_samples < self._config.min_samples:
            raise TooShortError(
                f"{self._label}: holds {self._num_samples} samples at {SAMPLE_RATE_HZ} Hz, less than the "
                f"{self._config.min_samples} of one analysis window. There is nothing to transcribe; remove it."
            )
        if damage is not None:
            raise damage

    def _count(self, piece: np.ndarray | Gap) -> None:
        if isinstance(piece, Gap):
            self._num_samples += piece.num_samples
        else:
            self._num_samples += piece.size
            self._peak = max(self._peak, float(np.abs(piece).max(initial=0.0)))
        self._longest = max(self._longest, self._num_samples)
        self._check_duration(seconds(self._num_samples))

    def _check_duration(self, duration_s: float) -> None:
        limit_s = self._config.limits.max_duration_s
        if duration_s > limit_s:
            raise TooLongError(
                f"{self._label}: holds at least {duration_s:.0f} s, and max_duration_s={limit_s:.0f}. "
                "Split it, or raise the limit if it is what it claims to be."
            )

    def _note_block(self, num_bytes: int, duration_s: float) -> None:
        """Count what is decoded; refuse more than a machine is to be given, and more than so few bytes can hold."""
        limits = self._config.limits
        self._stopwatch.check()
        self._num_decoded_bytes += num_bytes
        self._decoded_s += duration_s
        if self._num_decoded_bytes > limits.max_decoded_bytes:
            raise TooLargeError(
                f"{self._label}: decodes to more than max_decoded_bytes={limits.max_decoded_bytes}, after "
                f"{self._decoded_s:.0f} s of audio. Split it, or raise the limit if it is what it claims to be."
            )
        if self._decoded_s > FREE_S and self._num_bytes < limits.min_bytes_per_s * self._decoded_s:
            raise TooLargeError(
                f"{self._label}: its {self._num_bytes} bytes decode to {self._decoded_s:.0f} s and more, and "
                f"min_bytes_per_s={limits.min_bytes_per_s}: it was made to fill machines. Lower the limit if not."
            )


def _kept_apart(
    pieces: Iterator[np.ndarray | Gap], track: int, failures: list[AudioError]
) -> Iterator[np.ndarray | Gap]:
    """Pass the pieces of one of several tracks on: that it is of no use does not spoil the others."""
    try:
        yield from pieces
    except (TruncatedError, LimitError):
        raise
    except AudioError as error:
        failures.append(error)
        raise TruncatedError(f"{error} That is audio track {track}; the others are kept.") from error
