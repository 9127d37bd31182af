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
    errors = np.array([count.errors for count in counts])  # [utterances]
    words = np.array([count.reference_words for count in counts])  # [utterances]
    if not words.sum():
        return None
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=RESAMPLES)
    drawn_words = drawn @ words  # [resamples]
    rates = (drawn @ errors)[drawn_words > 0] / drawn_words[drawn_words > 0]
    low, high = np.quantile(rates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
