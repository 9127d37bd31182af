"""A seed in, days of invented speech out: words of a Zipf vocabulary with times, in segments, as arrays.

Knows no lake and no file. Nothing here was ever said; what matters is that sizes, repetition and spread are those of
speech, so that a lake of it is as large and as slow as a real one.
"""

from dataclasses import dataclass

import numpy as np

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


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Speech:
    """Segments in a row and the words in them. Positions count from the recording's first sample."""

    is_speech: np.ndarray
    """[segments]"""
    start_sample: np.ndarray
    """[segments]"""
    end_sample: np.ndarray
    """[segments]"""
    num_words: np.ndarray
    """[segments]"""
    word: np.ndarray
    """Index into `spellings`.  [words]"""
    word_start_sample: np.ndarray
    """[words]"""
    word_end_sample: np.ndarray
    """[words]"""
    confidence: np.ndarray
    """[words]"""


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
        is_speech=is_speech,
        start_sample=ends - duration,
        end_sample=ends,
        num_words=num_words,
        word=_words(random, total, num_types),
        word_start_sample=until[:-1] + gap + shift,
        word_end_sample=until[1:] + shift,
        confidence=np.minimum(random.beta(12.0, 1.0, total), 1.0).astype(np.float32),
    )


def _words(random: np.random.Generator, total: int, num_types: int) -> np.ndarray:
    """Draw words by their rank, some with a comma."""
    weights = 1.0 / (np.arange(1, num_types + 1) + ZIPF_SHIFT)
    drawn = np.searchsorted(np.cumsum(weights / weights.sum()), random.random(total))
    return np.minimum(drawn, num_types - 1) + num_types * (random.random(total) < COMMA_SHARE)
