"""The error classes of this project, named by who has to act.

Every error takes one string (what, where, what now), so that it survives pickling between processes.
"""

import re
from enum import StrEnum
from typing import ClassVar

_STEERING = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069]")
"""Control characters, line and paragraph separators, embeddings and isolates of direction."""


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


class AudioError(RecordingError):
    """The bytes are not usable audio; subclasses say why, one for each `Reason`."""

    reason = Reason.CORRUPT_AUDIO


class EmptyFileError(AudioError):
    """The object holds no bytes."""

    reason = Reason.EMPTY_FILE


class UnknownFormatError(AudioError):
    """No decoder knows this container or codec (encrypted audio among them)."""

    reason = Reason.UNKNOWN_FORMAT


class NoAudioStreamError(AudioError):
    """The container is readable but holds no audio."""

    reason = Reason.NO_AUDIO_STREAM


class InvalidHeaderError(AudioError):
    """The header claims what cannot be: 0 Hz, no channels."""

    reason = Reason.INVALID_HEADER


class TooManyChannelsError(AudioError):
    """More channels than the recipe allows."""

    reason = Reason.TOO_MANY_CHANNELS


class TooShortError(AudioError):
    """Not enough samples for one analysis window."""

    reason = Reason.TOO_SHORT


class LimitError(AudioError):
    """The file takes more than its limits allow; nothing of it is kept."""


class TooLongError(LimitError):
    """More audio than the limits allow."""

    reason = Reason.TOO_LONG


class TooLargeError(LimitError):
    """More samples than the limits allow, or more than so few bytes can hold."""

    reason = Reason.TOO_LARGE


class TooSlowError(LimitError):
    """Reading takes longer than the limits allow."""

    reason = Reason.TOO_SLOW


class NoSuchChannelError(AudioError):
    """The recording lacks the channel that was asked for."""

    reason = Reason.NO_SUCH_CHANNEL


class NoSuchTrackError(AudioError):
    """The container lacks the audio track that was asked for."""

    reason = Reason.NO_SUCH_TRACK


class SampleRangeError(AudioError):
    """Floating-point samples of which nobody can say how loud the loudest is."""

    reason = Reason.SAMPLE_RANGE


class NotFiniteError(AudioError):
    """Samples that are NaN or infinite."""

    reason = Reason.NOT_FINITE


class TruncatedError(AudioError):
    """The audio ends before its header says so; what was decoded is kept as `partial`."""

    reason = Reason.TRUNCATED


class DamagedError(TruncatedError):
    """Audio in the middle could not be decoded and is silent in what was; kept as `partial`."""

    reason = Reason.CORRUPT_AUDIO


class MisdeclaredError(TruncatedError):
    """There is more audio than the header says; all of it was decoded, and is kept as `partial`."""

    reason = Reason.INVALID_HEADER


class ObjectError(RecordingError):
    """The object cannot be read for a reason that retrying will not cure."""

    reason = Reason.UNREADABLE


class ObjectMissingError(ObjectError):
    """Nothing lies at this URI."""

    reason = Reason.OBJECT_MISSING


class NotAFileError(ObjectError):
    """The URI names a folder or a device."""

    reason = Reason.NOT_A_FILE


class ChangedDuringReadError(ObjectError):
    """The object was replaced while it was being read."""

    reason = Reason.CHANGED_DURING_READ


class TransientError(DgasrError):
    """May work next time (storage, device busy): the flow retries it, and nothing else is ever retried."""


class IntegrityError(DgasrError):
    """Lake, checkpoint or vocabulary contradict each other: stop, and write nothing."""


def printable(text: str) -> str:
    """Escape what would steer a terminal or turn the reading order around: names of files may hold anything.

    Args:
        text: a name or message as it is stored.

    Returns:
        The text with control characters (line ends and tabs too) and marks of direction written as Python writes them.
    """
    return "".join(_escaped(character) if _STEERING.match(character) else character for character in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
