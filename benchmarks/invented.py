"""A seed in, days of invented speech out, as arrays and as rows of a lake: words of a Zipf vocabulary with times.

Writes nothing. Nothing here was ever said; what matters is that sizes, repetition and spread are those of
speech, so that a lake of it is as large and as slow as a real one.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from dgasr.records import SAMPLE_RATE_HZ, Recording

ONSETS = (
    "b", "br", "c", "ch", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "l", "m", "n", "p", "pr", "r", "s", "sh",
    "st", "t", "th", "tr", "v", "w",
)  # fmt: skip
NUCLEI = ("a", "ai", "e", "ea", "i", "o", "oa", "oo", "ou", "u")
CODAS = ("", "", "l", "m", "n", "nd", "r", "rt", "s", "t")

COMMON = (
    "the", "and", "to", "of", "a", "you", "that", "in", "it", "is", "i", "we", "so", "for", "on", "be", "this", "have",
    "was", "not",
)  # fmt: skip
"""The most frequent words, in their order, so that questions with such words can be asked."""

ZIPF_SHIFT = 2.7
"""Mandelbrot's flattening of the most frequent ranks; the exponent is 1. Source: Mandelbrot 1953, rounded."""

COMMA_SHARE = 0.08
"""Share of words that a comma follows."""

GAP_SAMPLES = (800, 3_200)
"""Shortest and longest silence before a word: 50 and 200 ms."""

WORD_SAMPLES = (2_400, 8_000)
"""Shortest and longest word: 150 and 500 ms, so that speech has some 133 words a minute."""

SILENCE_SAMPLES = (8_000, 48_000)
"""Shortest and longest silent segment: 0.5 and 3 s."""

MIN_WORDS = 3
"""Fewest words of a spoken segment."""

FIRST_DAY = date(2026, 1, 1)

FLAGGED_EVERY = 50
"""Every such segment of a day, silent or not, carries a flag, from the first."""

TWIN_EVERY = 97
"""Every such recording of a day has the audio of the one before it, from the second."""

READ_RTFX = 400.0
"""Speed at which the invented recordings were read."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Speech:
    """Segments in a row and the words in them. Positions count from the recording's first sample."""

    # [segments]
    is_speech: np.ndarray
    start_sample: np.ndarray
    end_sample: np.ndarray
    num_words: np.ndarray
    # [words]
    word: np.ndarray
    """Index into `spellings`."""
    word_start_sample: np.ndarray
    word_end_sample: np.ndarray
    confidence: np.ndarray


def vocabulary(num_words: int, seed: int) -> list[str]:
    """Invent distinct words, the most frequent first."""
    random = np.random.default_rng(seed)
    words = dict.fromkeys(COMMON)
    parts = (ONSETS, NUCLEI, CODAS)
    while len(words) < num_words:
        num_syllables = 1 + int(random.integers(0, 1 + min(3, len(words) // 400)))
        drawn = random.random((num_syllables, len(parts)))
        letters = (part[int(share * len(part))] for row in drawn for share, part in zip(row, parts, strict=True))
        words["".join(letters)] = None
    return list(words)


def spellings(words: list[str]) -> list[str]:
    """List the words as they are written: plain, then with a comma."""
    return [*words, *(f"{word}," for word in words)]


def say(
    num_recordings: int, segments_per_recording: int, words_per_segment: float, num_types: int, seed: int
) -> Speech:
    """Invent recordings; every fifth segment of each is silent.

    Args:
        num_recordings: recordings, one after the other.
        segments_per_recording: segments of each.
        words_per_segment: mean number of words of a segment, silent ones counted in.
        num_types: size of the vocabulary.
        seed: another seed, other speech.
    """
    random = np.random.default_rng(seed)
    num_segments = num_recordings * segments_per_recording
    is_speech = np.arange(num_segments) % segments_per_recording % 5 != 4
    mean = words_per_segment / is_speech.mean()
    spoken = np.clip(random.gamma(4.0, mean / 4.0, num_segments).round(), MIN_WORDS, 60).astype(np.int64)
    num_words = np.where(is_speech, spoken, 0)
    total = int(num_words.sum())
    gap = random.integers(*GAP_SAMPLES, total)
    length = random.integers(*WORD_SAMPLES, total)
    until = np.concatenate([[0], np.cumsum(gap + length)])  # samples up to the end of a word, of all words in a row
    bounds = until[np.concatenate([[0], np.cumsum(num_words)])]
    silence = random.integers(*SILENCE_SAMPLES, num_segments)
    duration = np.where(is_speech, np.diff(bounds) + GAP_SAMPLES[0], silence)
    ends = np.cumsum(duration.reshape(num_recordings, segments_per_recording), axis=1).reshape(-1)
    shift = np.repeat(ends - duration - bounds[:-1], num_words)
    return Speech(
        is_speech=is_speech, start_sample=ends - duration, end_sample=ends, num_words=num_words,
        word=_words(random, total, num_types), word_start_sample=until[:-1] + gap + shift,
        word_end_sample=until[1:] + shift,
        confidence=np.minimum(random.beta(12.0, 1.0, total), 1.0).astype(np.float32),
    )  # fmt: skip


def _words(random: np.random.Generator, total: int, num_types: int) -> np.ndarray:
    """Draw words by their rank, some with a comma."""
    weights = 1.0 / (np.arange(1, num_types + 1) + ZIPF_SHIFT)
    drawn = np.searchsorted(np.cumsum(weights / weights.sum()), random.random(total))
    return np.minimum(drawn, num_types - 1) + num_types * (random.random(total) < COMMA_SHARE)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Day:
    """The recordings of one date, in the order of the speech, and what a recipe heard in them."""

    number: int
    recipe_id: str
    is_latest: bool
    """Whether this is what was transcribed last of it."""
    segments_per_recording: int
    speech: Speech

    @property
    def num_recordings(self) -> int:
        """Recordings that can be read."""
        return len(self.speech.is_speech) // self.segments_per_recording

    @property
    def num_samples(self) -> int:
        """All of its audio, at `SAMPLE_RATE_HZ`."""
        return int((self.speech.end_sample - self.speech.start_sample).sum())

    @property
    def midnight(self) -> datetime:
        """When the day begins."""
        return datetime.combine(FIRST_DAY + timedelta(days=self.number), datetime.min.time(), UTC)

    @property
    def run_id(self) -> str:
        """The run that transcribed it."""
        return f"{self.recipe_id}-{self.number:03d}"

    def recording(self, index: int) -> Recording:
        """Name the version of an object; `index` counts through the day."""
        uri = f"s3://archive/desk{index % 4}/{self.midnight:%Y/%m/%d}/{index:05d}.flac"
        etag = hashlib.blake2b(uri.encode(), digest_size=16).hexdigest()
        return Recording(uri=uri, etag=etag, size_bytes=9_000_000, modified_at=self.midnight + timedelta(seconds=index))


def recording_row(day: Day, index: int, shard_id: str) -> dict[str, Any]:
    """Make the row of one recording."""
    recording, speech = day.recording(index), day.speech
    own = slice(index * day.segments_per_recording, (index + 1) * day.segments_per_recording)
    samples = speech.end_sample[own] - speech.start_sample[own]
    decoded_s, speech_s = (float(n) / SAMPLE_RATE_HZ for n in (samples.sum(), samples[speech.is_speech[own]].sum()))
    twin = index - (index % TWIN_EVERY == 1)
    return _basics(recording, day, shard_id) | {
        "status": "ok", "container": "FLAC", "codec": "PCM_16", "source_sample_rate_hz": 48_000, "num_channels": 2,
        "declared_s": decoded_s, "decoded_s": decoded_s, "speech_s": speech_s, "dropped_s": decoded_s - speech_s,
        "num_segments": day.segments_per_recording, "num_words": int(speech.num_words[own].sum()), "language": "en",
        "audio_digest": hashlib.blake2b(f"{day.number} {twin}".encode(), digest_size=16).hexdigest(),
        "read_s": decoded_s / READ_RTFX,
    }  # fmt: skip


def rejected_row(day: Day, shard: int, shard_id: str) -> dict[str, Any]:
    """Make the row of a recording that nothing can read."""
    uri = f"s3://archive/desk0/{day.midnight:%Y/%m/%d}/broken{shard:04d}.bin"
    recording = Recording(uri=uri, etag="0", size_bytes=1_000, modified_at=day.midnight)
    zero = dict.fromkeys(("decoded_s", "speech_s", "dropped_s"), 0.0) | {"num_segments": 0, "num_words": 0}
    complaint = {"reason": "unknown_format", "message": f"{uri}: no decoder knows this container."}
    return _basics(recording, day, shard_id) | zero | complaint | {"status": "rejected"}


def _basics(recording: Recording, day: Day, shard_id: str) -> dict[str, Any]:
    """Make what all rows of recordings have."""
    return {
        "recording_id": recording.recording_id, "uri": recording.uri, "etag": recording.etag,
        "size_bytes": recording.size_bytes, "modified_at": recording.modified_at, "shard_id": shard_id,
        "run_id": day.run_id, "transcribed_at": day.midnight + timedelta(days=1, hours=day.is_latest),
    }  # fmt: skip


def segment_rows(day: Day, spelled: pa.Array) -> pa.Table:
    """Make the rows of a day's segments, in the order of the speech, without their shard."""
    speech = day.speech
    offsets = pa.array(np.concatenate([[0], np.cumsum(speech.num_words)]), pa.int32())
    texts = spelled.take(pa.array(speech.word))
    times = {"start_s": speech.word_start_sample, "end_s": speech.word_end_sample}
    columns = {"word": texts, **{name: pa.array(samples / SAMPLE_RATE_HZ) for name, samples in times.items()}}
    words = pa.StructArray.from_arrays([*columns.values(), pa.array(speech.confidence)], [*columns, "confidence"])
    num_segments = len(speech.is_speech)
    ids = [day.recording(index).recording_id for index in range(day.num_recordings)]
    means = np.add.reduceat(np.append(speech.confidence, 0), offsets.to_numpy()[:-1]) / np.maximum(speech.num_words, 1)
    is_last = np.arange(num_segments) % day.segments_per_recording == day.segments_per_recording - 1
    is_flagged = np.arange(num_segments) % FLAGGED_EVERY == 0
    flag_offsets = pa.array(np.concatenate([[0], np.cumsum(is_flagged)]), pa.int32())
    return pa.table(
        {
            "recording_id": np.repeat(ids, day.segments_per_recording),
            "segment_index": np.arange(num_segments) % day.segments_per_recording,
            "channel": np.zeros(num_segments, np.int32),
            "start_s": speech.start_sample / SAMPLE_RATE_HZ,
            "end_s": speech.end_sample / SAMPLE_RATE_HZ,
            "kind": np.where(speech.is_speech, "speech", "silence"),
            "cut": np.where(is_last, "end", "silence"),
            "text": pyarrow.compute.binary_join(pa.ListArray.from_arrays(offsets, texts), " "),
            "language": pa.array(["en"] * num_segments),
            "words": pa.ListArray.from_arrays(offsets, words),
            "timing_source": np.where(speech.is_speech, "ctc", "none"),
            "confidence": pa.array(means.astype(np.float32), mask=~speech.is_speech),
            "flags": pa.ListArray.from_arrays(flag_offsets, pa.array(["repetition"] * int(is_flagged.sum()))),
            "num_steps": np.where(speech.is_speech, 3, 0),
            "canvas_tokens": np.where(speech.is_speech, 64, 0),
        }
    )
