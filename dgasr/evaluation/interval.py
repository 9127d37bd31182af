"""How far an error rate may lie from the true one, given so many utterances: edit counts in, an interval out."""

from collections.abc import Sequence

import numpy as np

from dgasr.evaluation.wer import EditCounts

RESAMPLES = 1000
LEVEL = 0.95


def bootstrap_interval(counts: Sequence[EditCounts], seed: int = 0) -> tuple[float, float] | None:
    """Draw utterances with replacement, again and again, and see where the rate falls.

    Args:
        counts: edits of each utterance, because words of one utterance are not independent.
        seed: equal seeds give equal intervals.

    Returns:
        Lower and upper end of the interval at `LEVEL`; `None` where the references hold no word.

    Source:
        Bisani and Ney 2004, Bootstrap estimates for confidence intervals in ASR performance evaluation.
    """
    return _interval([count.errors for count in counts], [count.reference_words for count in counts], seed)


def paired_interval(
    counts: Sequence[EditCounts], baseline: Sequence[EditCounts], seed: int = 0
) -> tuple[float, float] | None:
    """Where the difference of two error rates on the same utterances may lie: rate less the baseline's.

    Args:
        counts: edits of each utterance.
        baseline: edits of the same utterances, done another way.
        seed: equal seeds give equal intervals.

    Returns:
        Lower and upper end of the interval at `LEVEL`; `None` where the references hold no word.

    Source:
        As `bootstrap_interval`; drawing utterances, not rates, keeps what is hard either way out of the difference.
    """
    more = [count.errors - other.errors for count, other in zip(counts, baseline, strict=True)]
    return _interval(more, [count.reference_words for count in counts], seed)


def _interval(errors: Sequence[int], words: Sequence[int], seed: int) -> tuple[float, float] | None:
    if not sum(words):
        return None
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(len(words), np.full(len(words), 1 / len(words)), size=RESAMPLES)
    drawn_words = drawn @ np.array(words)  # [resamples]
    rates = (drawn @ np.array(errors))[drawn_words > 0] / drawn_words[drawn_words > 0]
    low, high = np.quantile(rates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
