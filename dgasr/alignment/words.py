"""Decoded tokens and their CTC posteriors in, words with times and confidence out; there is always one per word.

A CTC frame `i` is centred on the segment's sample `i * frame_samples` and stands for the half frame on either side:
Whisper's mel frame `m` is centred on sample `160 m`, its encoder frame `e` on mel frame `2e`, and the projector's
output `k` at shift `s` on encoder frame `8k + s`. CTC says which words there are and roughly where; it peaks inside a
word and says little about its edges. Where a word borders on a pause the audio itself shows the edge, to half a mel
hop; words that run into each other keep CTC's edges. Knows neither tokenizer nor model.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from dgasr.alignment.ctc import TokenSpan, forced_alignment, min_frames
from dgasr.records import SAMPLE_RATE_HZ, Segment, TimingSource, Word, settings

DB_PER_MEL_UNIT = 40.0
"""Whisper scales log-mel as `(log10(power) + 4) / 4`."""

BEYOND = 1e9
"""A position, in samples, outside of any segment."""


@settings
class AlignmentConfig:
    """How CTC spans become word times and confidences, and when a segment is flagged."""

    frame_samples: int = 320
    """Samples from one CTC frame to the next; frame `i` is centred on the segment's sample `i * frame_samples`."""
    start_offset_ms: float = 0.0
    """Added to every start that CTC finds, ms: fitted on the model's training data, since peaks lie inside words."""
    end_offset_ms: float = 0.0
    """Added to every end that CTC finds, ms: fitted likewise."""
    max_snap_ms: float = 350.0
    """How far a word's edge may move to an edge of sound, ms: as far as CTC, which may get half a word, is wrong."""
    quiet_margin_db: float = 2.0
    """A frame this little above the segment's noise floor is quiet, dB: more cuts off weak consonants."""
    floor_percentile: float = 5.0
    """Percentile of a segment's frame energies that counts as its noise floor; speech leaves that many pauses."""
    min_quiet_ms: float = 30.0
    """Shortest quiet stretch between words, ms: a dip of one or two frames is a consonant's closure."""
    ctc_weight: float = 0.5
    """Share of the CTC posterior in a word's confidence, in [0, 1], as an exponent; the decoder has the rest."""
    confidence_power: float = 1.0
    """What the odds of both together are raised to, > 0: below 1 for a model that is too sure either way."""
    confidence_shift: float = 0.0
    """Added to their logarithm then: above 0 for a model that is right more often than it says."""
    max_words_per_s: float = 7.0
    """Words per second above which a text is too long for its audio; ordinary speech has 2 to 4."""
    max_repetitions: int = 3
    """How often a phrase of two words or more may follow itself; decoding loops go on for longer."""
    max_word_repetitions: int = 5
    """How often a single word may follow itself; numbers may well hold four zeros."""
    max_ctc_distance: float = 0.5
    """Word edits between CTC's text and the decoder's, over the longer one's words; 1 switches the flag off."""
    min_confidence: float = 0.5
    """Segment confidence below which the text is flagged: something important in it may well be wrong."""


@dataclass(frozen=True, slots=True)
class Loudness:
    """How loud a segment is over time."""

    db: np.ndarray
    """Mean level of the mel bands, dB up to a constant; frame `i` is centred on sample `i * hop_samples`.  [frames]"""
    hop_samples: int
    """Samples from one frame to the next."""


def loudness(log_mel: np.ndarray, hop_samples: int) -> Loudness:
    """Measure loudness as the mean over mel bands in dB, of Whisper's features of the frames of audio.  [mels, frames]

    The mean of logarithms rises with a weak consonant in a few bands; the logarithm of the sum only with vowels.
    """
    return Loudness(DB_PER_MEL_UNIT * log_mel.astype(np.float32).mean(axis=0), hop_samples)


def snap_to_sound(edges: np.ndarray, pivots: np.ndarray, pauses: np.ndarray, config: AlignmentConfig) -> np.ndarray:
    """Move word edges to the edges of the pauses between them, where there is a pause near enough.

    Of the quiet stretches between two words' pivots that one counts whose two ends lie nearest to the rough end and the
    rough start: a closure inside a word ("six") is nearer to one of them at most.

    Args:
        edges: rough starts and ends, in order of time.  [words, 2]
        pivots: a sample inside each word that no edge may cross.  [words]
        pauses: of the segment, from `quiet_stretches`.  [pauses, 2]
        config: how far an edge may move.

    Returns:
        The edges, those near a pause moved to it.  [words, 2]
    """
    moved = edges.astype(float)
    limit = config.max_snap_ms * SAMPLE_RATE_HZ / 1000
    for gap in range(len(edges) + 1):
        has_end, has_start = gap > 0, gap < len(edges)
        after = pauses[:, 0] >= (pivots[gap - 1] if has_end else -BEYOND)
        between = pauses[after & (pauses[:, 1] <= (pivots[gap] if has_start else BEYOND))]
        if not len(between):
            continue
        rough = (moved[gap - 1, 1] if has_end else 0.0, moved[gap, 0] if has_start else 0.0)
        distances = np.abs(between - rough) * (has_end, has_start)
        # How far beyond the limit does not matter: such an edge stays where it is.
        nearest = np.minimum(distances, limit + 1).sum(axis=1).argmin()
        if has_end and distances[nearest, 0] <= limit:
            moved[gap - 1, 1] = between[nearest, 0]
        if has_start and distances[nearest, 1] <= limit:
            moved[gap, 0] = between[nearest, 1]
    return moved


def out_of_silence(pivots: np.ndarray, pauses: np.ndarray, config: AlignmentConfig) -> np.ndarray:
    """Move pivots before a segment's first sound to it, and those behind its last: CTC may say a word a little early.

    Pivots are a sample of each word, in order, [words]; pauses come from `quiet_stretches`, [pauses, 2].
    """
    limit = config.max_snap_ms * SAMPLE_RATE_HZ / 1000
    moved = pivots.astype(float)
    for start, end in pauses[(pauses[:, 0] == -BEYOND) != (pauses[:, 1] == BEYOND)]:
        edge = end if start == -BEYOND else start
        moved[(moved > start) & (moved < end) & (np.abs(moved - edge) <= limit)] = edge
    return moved


def quiet_stretches(sound: Loudness, config: AlignmentConfig) -> np.ndarray:
    """Find the quiet stretches, from the last loud frame before to the first loud frame after each.  [pauses, 2].

    A stretch that touches the segment's edge reaches beyond it: nothing there can be the edge of a word.
    """
    if not sound.db.size:
        return np.empty((0, 2))
    quiet = sound.db < np.percentile(sound.db, config.floor_percentile) + config.quiet_margin_db
    steps = np.diff(np.concatenate([[0], quiet, [0]]).astype(np.int8))
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    long_enough = (ends - starts) * sound.hop_samples >= config.min_quiet_ms * SAMPLE_RATE_HZ / 1000
    # A frame turns loud as soon as sound reaches about its middle, so its centre is the edge's best estimate.
    last_loud = np.where(starts > 0, (starts - 1) * sound.hop_samples, -BEYOND)
    first_loud = np.where(ends < len(quiet), ends * sound.hop_samples, BEYOND)
    return np.stack([last_loud, first_loud], axis=1)[long_enough]


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
    *,
    has_blank: bool = True,
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
        has_blank: CTC can be trusted; else words are spread evenly, as sure as the decoder is.

    Returns:
        One `Word` for each of `words`: inside the segment, in order, not overlapping, none empty; and how they were
        placed. A text that CTC cannot fit into its frames is spread over the segment, with confidence 0. (Words overlap
        only where there are more of them than samples, which is no speech.)
    """
    if not words:
        return (), "none"
    if not has_blank:
        return _as_words(words, _spread(words, segment.num_samples), [w.probability for w in words], segment), "even"
    if min_frames(labels) > len(log_probs):
        confidences = [0.0] * len(words)
        return _as_words(words, _spread(words, segment.num_samples), confidences, segment), "interpolated"
    spans = forced_alignment(log_probs, labels)
    raw = raw_edges(words, spans, config)
    pauses = quiet_stretches(sound, config)
    # CTC peaks inside the word: whatever else moves, this sample is the word's.
    pivots = out_of_silence(raw.mean(axis=1), pauses, config)
    offsets = np.array([config.start_offset_ms, config.end_offset_ms]) * SAMPLE_RATE_HZ / 1000
    edges = snap_to_sound(_apart(raw + offsets, pivots), pivots, pauses, config)
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

    The mean of the words' confidences, which is the share of words expected to be right; for a text without words, the
    probability of the blank in the frame that is least sure of it, by its CTC log-probabilities [frames].
    """
    if words:
        return float(np.mean([word.confidence for word in words]))
    return float(np.exp(blank_log_probs.min(initial=0.0)))


def _confidence(word: WordTokens, spans: Sequence[TokenSpan], config: AlignmentConfig) -> float:
    """Join what decoder and CTC think of a word as a geometric mean: a word that one of them doubts is doubtful.

    Its log odds are scaled and shifted to how often words are right (Platt 1999, Probabilistic outputs for support
    vector machines).
    """
    ctc = np.exp(min(span.log_prob for span in spans[word.start_token : word.end_token]))
    joint = word.probability ** (1 - config.ctc_weight) * ctc**config.ctc_weight
    right, wrong = min(joint, 1.0) ** config.confidence_power, (1 - min(joint, 1.0)) ** config.confidence_power
    return float(right / (right + wrong * np.exp(-config.confidence_shift)))


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
