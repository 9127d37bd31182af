"""What was decoded of a segment in, reasons to doubt it out. Nothing is changed or dropped: the reader decides."""

from collections.abc import Sequence
from enum import StrEnum

from rapidfuzz.distance import Levenshtein

from dgasr.alignment.words import AlignmentConfig
from dgasr.records import SAMPLE_RATE_HZ, Word


class Flag(StrEnum):
    """Reasons to doubt a segment; the values in `segments.flags`."""

    NO_SPEECH = "no_speech"
    """There is text, but the alternative text is empty: silence, music or noise that words were made of."""
    TOO_FAST = "too_fast"
    """More words a second than anybody speaks."""
    REPETITION = "repetition"
    """A phrase follows itself more often than people do, and more often than in the other text."""
    CTC_DISAGREES = "ctc_disagrees"
    """The texts of decoder, or causal encoder, and CTC differ largely, or one of them is empty."""
    LOW_CONFIDENCE = "low_confidence"
    """The segment's confidence is below the limit."""
    UNSETTLED = "unsettled"
    """The decoder ran out of steps while tokens were still changing."""
    OVERFLOW = "overflow"
    """The text filled the largest canvas there is, so its end may be missing."""


MIN_SPOKEN_S = 1.0
"""Speech shorter than this counts as this long for `too_fast`: one clipped word is no rate, s."""


def flag_segment(
    words: Sequence[Word],
    alternative_words: Sequence[str],
    confidence: float,
    *,
    is_settled: bool,
    is_overflow: bool,
    config: AlignmentConfig,
) -> tuple[str, ...]:
    """Collect the reasons to doubt a decoded segment.

    Args:
        words: the decoded words with their times.
        alternative_words: the words of the text that was not taken, CTC's or the decoder's, split and spelled likewise.
        confidence: of the segment, in [0, 1].
        is_settled: the canvas had stopped changing when the decoder stopped.
        is_overflow: the largest canvas held no end of text.
        config: the limits.

    Returns:
        Values of `Flag` in the order of its definition, each at most once.
    """
    text = [word.word for word in words]
    reasons = {
        Flag.NO_SPEECH: bool(text) and not alternative_words,
        Flag.TOO_FAST: len(text) > config.max_words_per_s * _spoken_s(words),
        Flag.REPETITION: _is_loop(text, alternative_words, config),
        # Word edits over the words of the longer text: 0 is equal, 1 has nothing in common.
        Flag.CTC_DISAGREES: Levenshtein.normalized_distance(text, alternative_words) > config.max_ctc_distance,
        Flag.LOW_CONFIDENCE: confidence < config.min_confidence,
        Flag.UNSETTLED: not is_settled,
        Flag.OVERFLOW: is_overflow,
    }
    return tuple(flag.value for flag, applies in reasons.items() if applies)


def longest_run(words: Sequence[str], period: int) -> int:
    """Count how often the phrase of `period` words that follows itself most does so: 1 when none ever does."""
    run = longest = 0
    for position in range(period, len(words)):
        run = run + 1 if words[position] == words[position - period] else 0
        longest = max(longest, run)
    return longest // period + 1


def _spoken_s(words: Sequence[Word]) -> float:
    """Measure the time from the first word's start to the last word's end, s."""
    if not words:
        return MIN_SPOKEN_S
    return max((words[-1].end_sample - words[0].start_sample) / SAMPLE_RATE_HZ, MIN_SPOKEN_S)


def _is_loop(text: Sequence[str], alternative_words: Sequence[str], config: AlignmentConfig) -> bool:
    """Tell whether some phrase repeats beyond the limit and beyond what the other text has of it."""
    for period in range(1, len(text) // 2 + 1):
        allowed = config.max_word_repetitions if period == 1 else config.max_repetitions
        if longest_run(text, period) > max(allowed, longest_run(alternative_words, period)):
            return True
    return False
