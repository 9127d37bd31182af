"""Decoded tokens and their CTC posteriors in, words with times and confidence out; there is always one per word.

A CTC frame `i` is centred on the segment's sample `i * frame_samples` and stands for the half frame on either side:
Whisper's mel frame `m` is centred on sample `160 m`, its encoder frame `e` on mel frame `2e`, and the projector's
output `k` at shift `s` on encoder frame `8k + s`. Knows neither tokenizer nor model.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from dgasr.alignment.boundaries import Loudness, snap_to_sound
from dgasr.alignment.config import AlignmentConfig
from dgasr.alignment.ctc import TokenSpan, forced_alignment, min_frames
from dgasr.records import SAMPLE_RATE_HZ, Segment, TimingSource, Word


@dataclass(frozen=True, slots=True)
class WordTokens:
    """A word of the decoded text and which of its tokens spell it."""

    word: str
    start_token: int
    end_token: int
    """Exclusive."""
    probability: float
    """What the decoder gives the least likely of these tokens, in [0, 1]."""


def align_words(
    words: Sequence[WordTokens],
    labels: Sequence[int],
    log_probs: np.ndarray,
    sound: Loudness,
    segment: Segment,
    config: AlignmentConfig,
) -> tuple[tuple[Word, ...], TimingSource]:
    """Give every word of a segment its times and its confidence.

    Args:
        words: the words in order, with ascending token ranges, none of them empty; a token may spell several words.
        labels: token ids of the whole text.
        log_probs: CTC log-probabilities of the frames that hold audio; column 0 is the blank, column k + 1 that of
            `labels[k]`.  [frames, 1 + labels]
        sound: loudness of the same audio.
        segment: where the audio lies in the recording.
        config: calibration and weights.

    Returns:
        One `Word` for each of `words`: inside the segment, in order, not overlapping, none empty; and how they were
        placed. A text that CTC cannot fit into its frames is spread over the segment, with confidence 0. (Words overlap
        only where there are more of them than samples, which is no speech.)
    """
    if not words:
        return (), "none"
    if min_frames(labels) > len(log_probs):
        confidences = [0.0] * len(words)
        return _as_words(words, _spread(words, segment.num_samples), confidences, segment), "interpolated"
    spans = forced_alignment(log_probs, labels)
    raw = raw_edges(words, spans, config)
    pivots = raw.mean(axis=1)  # CTC peaks inside the word: whatever else moves, this sample is the word's
    offsets = np.array([config.start_offset_ms, config.end_offset_ms]) * SAMPLE_RATE_HZ / 1000
    edges = snap_to_sound(_apart(raw + offsets, pivots), pivots, sound, config)
    confidences = [_confidence(word, spans, config) for word in words]
    return _as_words(words, _apart(edges, pivots), confidences, segment), "ctc"


def raw_edges(words: Sequence[WordTokens], spans: Sequence[TokenSpan], config: AlignmentConfig) -> np.ndarray:
    """Turn the frames of each word's tokens into samples from the segment's start, uncalibrated.  [words, 2]."""
    starts, ends = [word.start_token for word in words], [word.end_token for word in words]

    def frame_in(token: int, index: int) -> float:
        """Find where the token's part for the word `index` starts: words that share a token divide its frames."""
        first, behind = bisect_right(ends, token), bisect_right(starts, token)
        span = spans[token]
        return span.start_frame + (span.end_frame - span.start_frame) * (index - first) / (behind - first)

    frames = [
        (frame_in(start, i), frame_in(end - 1, i + 1)) for i, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]
    return (np.array(frames).reshape(-1, 2) - 0.5) * config.frame_samples


def segment_confidence(words: Sequence[Word], blank_log_probs: np.ndarray) -> float:
    """Estimate how far a segment's text can be trusted.

    Args:
        words: the segment's words.
        blank_log_probs: CTC log-probability of the blank in every frame.  [frames]

    Returns:
        The mean of the words' confidences, which is the share of words expected to be right; for a text without words,
        the probability of the blank in the frame that is least sure of it.
    """
    if words:
        return float(np.mean([word.confidence for word in words]))
    return float(np.exp(blank_log_probs.min(initial=0.0)))


def _confidence(word: WordTokens, spans: Sequence[TokenSpan], config: AlignmentConfig) -> float:
    """Join what decoder and CTC think of a word as a geometric mean: a word that one of them doubts is doubtful."""
    heard = np.exp(min(span.log_prob for span in spans[word.start_token : word.end_token]))
    joint = word.probability ** (1 - config.ctc_weight) * heard**config.ctc_weight
    return float(np.clip(joint, 0.0, 1.0))


def _apart(edges: np.ndarray, pivots: np.ndarray) -> np.ndarray:
    """Keep each word around its pivot; words that overlap meet in the middle of the overlap, between their pivots."""
    starts, ends = np.minimum(edges[:, 0], pivots), np.maximum(edges[:, 1], pivots)
    meeting = np.clip((ends[:-1] + starts[1:]) / 2, pivots[:-1], pivots[1:])
    overlap = ends[:-1] > starts[1:]
    ends[:-1][overlap] = meeting[overlap]
    starts[1:][overlap] = meeting[overlap]
    return np.stack([starts, ends], axis=1)


def _spread(words: Sequence[WordTokens], num_samples: int) -> np.ndarray:
    """Divide a segment among its words by their numbers of letters.  [words, 2]."""
    ends = np.array(list(accumulate(max(len(word.word), 1) for word in words)))
    edges = np.concatenate([[0], ends]) * (num_samples / ends[-1])
    return np.stack([edges[:-1], edges[1:]], axis=1)


def _as_words(
    words: Sequence[WordTokens], edges: np.ndarray, confidences: Sequence[float], segment: Segment
) -> tuple[Word, ...]:
    """Round edges to samples, push them into the segment and keep every word at least one sample long."""
    starts, ends = edges.round().astype(int).T.tolist()
    placed, earliest = [], 0
    for index, (word, confidence) in enumerate(zip(words, confidences, strict=True)):
        latest = max(segment.num_samples - (len(words) - index), 0)  # leaves a sample for each word that follows
        start = min(max(starts[index], earliest), latest)
        end = min(max(ends[index], start + 1), latest + 1)
        placed.append(
            Word(
                word=word.word,
                start_sample=segment.start_sample + start,
                end_sample=segment.start_sample + end,
                confidence=confidence,
            )
        )
        earliest = end
    return tuple(placed)
