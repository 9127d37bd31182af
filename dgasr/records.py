"""Frozen records that are handed between packages, and how words become a text.

Positions are integer samples at `SAMPLE_RATE_HZ`; `seconds` is the one way out.
"""

import hashlib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, TypeVar, dataclass_transform

import numpy as np

Class = TypeVar("Class")


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
def settings(cls: type[Class]) -> type[Class]:
    """Make a frozen dataclass of settings: where pydantic reads one, a field of another name is refused."""
    cls.__pydantic_config__ = {"extra": "forbid"}  # type: ignore[attr-defined]
    return dataclass(frozen=True, kw_only=True, slots=True)(cls)


SAMPLE_RATE_HZ = 16_000
"""Sample rate of every waveform and every sample position inside the project."""

SegmentKind = Literal["speech", "silence", "gap"]
"""`speech` goes to the decoder; `silence` is below the speech gate; for a `gap` the container has no audio. The last
two are kept as rows without text."""

CutKind = Literal["silence", "forced", "end"]
"""Why a segment ends: at a silence, at the window's limit in the middle of sound, or with the recording."""

TimingSource = Literal["ctc", "interpolated", "even", "none"]
"""`ctc`: Viterbi alignment against the CTC posteriors. `interpolated`: more tokens than CTC has frames for, so the
words are spread over the segment by their lengths. `even`: spread likewise, since the model's CTC blank is unknown.
`none`: no words, so no times."""

UNSPACED = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\u1b00-\u1b7f\u2e80-\u2fff"
    "\u3000-\u312f\u3190-\u4dbf\u4e00-\u9fff\ua980-\ua9ff\uaa60-\uaadf\uf900-\ufaff\uff01-\uff0f\uff1a-\uff20"
    "\uff5f-\uff9f\U0001aff0-\U0001b16f\U00020000-\U0003ffff"
)
"""Thai, Lao, Tibetan, Myanmar, Khmer, Tai, Balinese, Javanese, Kana, Han, and the punctuation of these; for a class of
a regular expression. `sql/unspaced.sql` has the same ones."""

_RANGES = [(first, last) for first, last in zip(UNSPACED[::3], UNSPACED[2::3], strict=True)]


def seconds(num_samples: int) -> float:
    """Turn a number of samples into seconds, the only place where that happens."""
    return num_samples / SAMPLE_RATE_HZ


MISSING_ETAG = "missing"
"""ETag of a recording that was asked for by name and is not there; reading it says so."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""When a missing object was modified."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """One version of an audio object."""

    uri: str
    """`s3://bucket/key`, an absolute path, or `file://` where that is no text."""
    etag: str
    size_bytes: int
    modified_at: datetime

    @property
    def recording_id(self) -> str:
        """Identity of this version: 32 hex digits over URI and ETag."""
        key = f"{self.uri}\0{self.etag}".encode("utf-8", "surrogateescape")
        return hashlib.blake2b(key, digest_size=16).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """A stretch of a recording for which its container has no audio: it starts late, or its timestamps jump."""

    num_samples: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """Samples `[start_sample, end_sample)` of a recording, at most one encoder window long."""

    recording_id: str
    segment_index: int
    channel: int
    start_sample: int
    end_sample: int
    kind: SegmentKind
    cut: CutKind
    audio_track: int = 0

    @property
    def num_samples(self) -> int:
        """Length in samples."""
        return self.end_sample - self.start_sample


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SegmentFeatures:
    """A segment with what the encoder needs of it."""

    segment: Segment
    log_mel: np.ndarray
    """Log-mel features as Whisper scales them, only the frames that hold audio, float16.  [mels, frames]"""
    pad_value: float
    """What the features of digital silence after the segment would be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Word:
    """A word of a transcript; positions count from the recording's first sample, `end_sample` is exclusive."""

    word: str
    start_sample: int
    end_sample: int
    confidence: float
    """Probability in [0, 1] that the word is right."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentTranscript:
    """What the model says of one segment. A silent segment has empty text, no words and `timing_source` "none"."""

    segment: Segment
    text: str
    language: str
    words: tuple[Word, ...]
    timing_source: TimingSource
    confidence: float | None
    """Probability in [0, 1]; `None` for a segment that was never decoded."""
    flags: tuple[str, ...]
    """Reasons to doubt this segment, of `alignment.flags.Flag`; empty when there are none."""
    num_steps: int
    """Denoising steps spent; 0 for a segment that was never decoded."""
    canvas_tokens: int
    """Length of the canvas that held the text; 0 for a segment that was never decoded."""


def silent_transcript(segment: Segment, language: str) -> SegmentTranscript:
    """Give a segment that is never decoded its empty transcript."""
    return SegmentTranscript(
        segment=segment, text="", language=language, words=(), timing_source="none", confidence=None, flags=(),
        num_steps=0, canvas_tokens=0,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioReport:
    """What a container claims against what was decoded from it."""

    container: str
    codec: str
    source_sample_rate_hz: int
    num_channels: int
    declared_s: float | None
    """Duration in the header, `None` where the container states none."""
    decoded_samples: int
    """Samples at `SAMPLE_RATE_HZ` after resampling to mono, gaps included."""
    audio_track: int | None = 0
    """Which of the container's audio tracks was read, from 0; `None` where several were."""
    num_audio_tracks: int = 1
    """How many it has."""
    cancelled_s: float = 0.0
    """Time in which the channels' mean would have cancelled what is said, so that some were turned."""
    channels_differ: bool | None = False
    """Whether the channels hold different voices: transcribe them one by one; `None` where that is done."""
    sample_correction: str | None = None
    """What was wrong with the range of its samples and was put right; `None` where nothing was."""
    peak_dbfs: float | None = None
    """Its loudest sample, dB relative to full scale; `None` where all are 0."""
    num_transcripts: int = 1
    """Tracks and channels of it that are transcribed each by itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """The unit of commit: recordings that are written together, whole or not at all."""

    shard_id: str
    recordings: tuple[Recording, ...]
    take: int = 0
    """Counts how often these recordings were asked for anew; of several takes of a recording the highest is shown."""


def join_words(texts: Iterable[str]) -> str:
    """Join words or longer pieces of text, with spaces where their writing has them; empty ones are left out."""
    joined, last = "", ""
    for text in texts:
        # Marks and characters that nobody sees (between words of Khmer, behind a Han character) belong to no writing.
        shown = [character for character in text if not has_no_width(character)] or text
        if text:
            joined += text if not joined or is_unspaced(last) or is_unspaced(shown[0]) else f" {text}"
            last = shown[-1]
    return joined


def has_no_width(character: str) -> bool:
    """Say whether a character takes no place of its own: a mark on the one before it, or what nobody sees."""
    return unicodedata.category(character) in ("Mn", "Me", "Cf")


def is_unspaced(character: str) -> bool:
    """Say whether a character belongs to a writing without spaces between words."""
    return any(first <= character <= last for first, last in _RANGES)
