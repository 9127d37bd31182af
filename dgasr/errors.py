"""The error classes of this project, named by who has to act.

Every error takes one string (what, where, what now), so that it survives pickling between processes.
"""

import re
from enum import StrEnum
from typing import ClassVar

_STEERING = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069\\ud800-\\udfff]"
)
"""Control characters, line and paragraph separators, all marks of direction, and halves of characters."""


class Reason(StrEnum):
    """Why a recording is `rejected` or `partial`; the values of `recordings.reason` in the lake."""

    OBJECT_MISSING = "object_missing"
    NOT_A_FILE = "not_a_file"
    UNREADABLE = "unreadable"
    CHANGED_DURING_READ = "changed_during_read"
    EMPTY_FILE = "empty_file"
    UNKNOWN_FORMAT = "unknown_format"
    NO_AUDIO_STREAM = "no_audio_stream"
    INVALID_HEADER = "invalid_header"
    TOO_MANY_CHANNELS = "too_many_channels"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    TOO_LARGE = "too_large"
    TOO_SLOW = "too_slow"
    NO_SUCH_CHANNEL = "no_such_channel"
    NO_SUCH_TRACK = "no_such_track"
    SAMPLE_RANGE = "sample_range"
    NOT_FINITE = "not_finite"
    CORRUPT_AUDIO = "corrupt_audio"
    TRUNCATED = "truncated"
    CRASHES_DECODER = "crashes_decoder"


class DgasrError(Exception):
    """Base of every error this project raises on purpose."""


class ConfigError(DgasrError):
    """The request is wrong: a person must change it. Raised before any work starts."""


class RecordingError(DgasrError):
    """One recording cannot be used: it becomes a row in the lake, and the run goes on."""

    reason: ClassVar[Reason]

    def __init_subclass__(cls, reason: Reason | None = None) -> None:
        super().__init_subclass__()
        cls.reason = reason or cls.reason


class AudioError(RecordingError, reason=Reason.CORRUPT_AUDIO):
    """The bytes are not usable audio; subclasses say why, one for each `Reason`."""


class EmptyFileError(AudioError, reason=Reason.EMPTY_FILE):
    """The object holds no bytes."""


class UnknownFormatError(AudioError, reason=Reason.UNKNOWN_FORMAT):
    """No decoder knows this container or codec (encrypted audio among them)."""


class NoAudioStreamError(AudioError, reason=Reason.NO_AUDIO_STREAM):
    """The container is readable but holds no audio."""


class InvalidHeaderError(AudioError, reason=Reason.INVALID_HEADER):
    """The header claims what cannot be: 0 Hz, no channels."""


class TooManyChannelsError(AudioError, reason=Reason.TOO_MANY_CHANNELS):
    """More channels than the recipe allows."""


class TooShortError(AudioError, reason=Reason.TOO_SHORT):
    """Not enough samples for one analysis window."""


class LimitError(AudioError):
    """The file takes more than its limits allow; nothing of it is kept."""


class TooLongError(LimitError, reason=Reason.TOO_LONG):
    """More audio than the limits allow."""


class TooLargeError(LimitError, reason=Reason.TOO_LARGE):
    """More samples than the limits allow, or more than so few bytes can hold."""


class TooSlowError(LimitError, reason=Reason.TOO_SLOW):
    """Reading takes longer than the limits allow."""


class NoSuchChannelError(AudioError, reason=Reason.NO_SUCH_CHANNEL):
    """The recording lacks the channel that was asked for."""


class NoSuchTrackError(AudioError, reason=Reason.NO_SUCH_TRACK):
    """The container lacks the audio track that was asked for."""


class SampleRangeError(AudioError, reason=Reason.SAMPLE_RANGE):
    """Floating-point samples of which nobody can say how loud the loudest is."""


class NotFiniteError(AudioError, reason=Reason.NOT_FINITE):
    """Samples that are NaN or infinite."""


class TruncatedError(AudioError, reason=Reason.TRUNCATED):
    """The audio ends before its header says so; what was decoded is kept as `partial`."""


class DamagedError(TruncatedError, reason=Reason.CORRUPT_AUDIO):
    """Audio in the middle could not be decoded and is silent in what was; kept as `partial`."""


class MisdeclaredError(TruncatedError, reason=Reason.INVALID_HEADER):
    """There is more audio than the header says; all of it was decoded, and is kept as `partial`."""


class ObjectError(RecordingError, reason=Reason.UNREADABLE):
    """The object cannot be read for a reason that retrying will not cure."""


class ObjectMissingError(ObjectError, reason=Reason.OBJECT_MISSING):
    """Nothing lies at this URI."""


class NotAFileError(ObjectError, reason=Reason.NOT_A_FILE):
    """The URI names a folder or a device."""


class ChangedDuringReadError(ObjectError, reason=Reason.CHANGED_DURING_READ):
    """The object was replaced while it was being read."""


class TransientError(DgasrError):
    """May work next time (storage, device busy): the flow retries it, and nothing else is ever retried."""


class IntegrityError(DgasrError):
    """Lake, checkpoint or vocabulary contradict each other: stop, and write nothing."""


def printable(text: str) -> str:
    """Escape what would steer a terminal or turn the reading order around: names of files may hold anything.

    Control characters (line ends and tabs too), marks of direction and halves of characters, which no file can hold,
    are written as Python writes them.
    """
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def printable_lines(text: str) -> str:
    """Escape likewise within each line; line ends stay."""
    return "\n".join(map(printable, text.split("\n")))
