"""How far an error rate may lie from the true one, given so many utterances: edit counts in, an interval out."""

from collections.abc import Callable, Sequence

import numpy as np

from dgasr.evaluation.wer import EditCounts

RESAMPLES = 1000
LEVEL = 0.95

MIN_SPEAKERS = 10
"""Speakers needed before they are drawn in place of utterances. An interval from a handful of speakers is far too
narrow (one speaker: no width at all), because so few draws never leave the speakers that were recorded."""


def drawn_units(speakers: Sequence[str | None]) -> np.ndarray:
    """Say which utterances are drawn together: those of a speaker, where enough speakers are known.

    Utterances of one speaker are not independent: who is hard to recognise is so in all of them.

    Args:
        speakers: of each utterance, `None` where unknown.

    Returns:
        Number of the unit of each utterance, from 0 without gaps.  [utterances]
    """
    known = sorted({speaker for speaker in speakers if speaker is not None})
    if None in speakers or len(known) < MIN_SPEAKERS:
        return np.arange(len(speakers))
    numbers = {speaker: n for n, speaker in enumerate(known)}
    return np.array([numbers[speaker] for speaker in speakers if speaker is not None])


def bootstrap_interval(
    counts: Sequence[EditCounts], units: np.ndarray | None = None, seed: int = 0
) -> tuple[float, float] | None:
    """Draw utterances with replacement, again and again, and see where the rate falls.

    Args:
        counts: edits of each utterance, because words of one utterance are not independent.
        units: what `drawn_units` gives, to draw speakers; utterances when `None`.
        seed: equal seeds give equal intervals.

    Returns:
        Lower and upper end of the interval at `LEVEL`; `None` where the references hold no word.

    Source:
        Bisani and Ney 2004, Bootstrap estimates for confidence intervals in ASR performance evaluation.
    """
    errors, words = [count.errors for count in counts], [count.reference_words for count in counts]
    return _quantiles(_drawn_rates(errors, words, units, seed)) if sum(words) else None


def ratio_interval(
    counts: Sequence[EditCounts], baseline: Sequence[EditCounts], units: np.ndarray | None = None, seed: int = 0
) -> tuple[float, float] | None:
    """Where the ratio of two error rates on the same utterances may lie: rate over the baseline's.

    Args:
        counts: edits of each utterance.
        baseline: edits of the same utterances by another system.
        units: what `drawn_units` gives, to draw speakers; utterances when `None`.
        seed: equal seeds give equal intervals.

    Returns:
        Lower and upper end of the interval at `LEVEL`; `None` where the baseline makes no error, or in some draws none.

    Source:
        As `bootstrap_interval`; drawing utterances, not rates, keeps what is hard for both out of the ratio. The
        reference words are the same on both sides, so errors alone are divided.
    """
    ours, theirs = [count.errors for count in counts], [other.errors for other in baseline]
    return _quantiles_of_most(_drawn_rates(ours, theirs, units, seed)) if sum(theirs) else None


def statistics_intervals(
    parts: Sequence[np.ndarray], statistics: Callable[[np.ndarray], Sequence[float]], units: np.ndarray, seed: int = 0
) -> list[tuple[float, float] | None]:
    """Intervals of figures that are no ratio of sums, such as a median, over what is drawn of the utterances.

    Args:
        parts: values of each utterance, such as confidences beside right or wrong.  [values, columns] each
        statistics: values of all utterances that were drawn in; figures out, NaN for one that they do not determine.
        units: what `drawn_units` gives.  [utterances]
        seed: equal seeds give equal intervals.

    Returns:
        For each figure lower and upper end of the interval at `LEVEL`; `None` where too few draws determine it.
    """
    values = np.concatenate(list(parts))
    owners = np.repeat(units, [len(part) for part in parts])  # [values]
    num_units = int(units.max()) + 1
    generator = np.random.default_rng(seed)
    figures = []
    for _ in range(RESAMPLES):
        times_drawn = np.bincount(generator.integers(num_units, size=num_units), minlength=num_units)  # [units]
        figures.append(statistics(values.repeat(times_drawn[owners], axis=0)))
    columns = np.array(figures, dtype=float).T  # [figures, resamples]
    return [_quantiles_of_most(column[np.isfinite(column)]) for column in columns]


def _drawn_rates(errors: Sequence[int], words: Sequence[int], units: np.ndarray | None, seed: int) -> np.ndarray:
    """Give the rate of every draw that holds words.  [resamples]"""
    units = np.arange(len(words)) if units is None else units
    num_units = int(units.max()) + 1
    unit_errors = np.bincount(units, weights=errors, minlength=num_units)
    unit_words = np.bincount(units, weights=words, minlength=num_units)
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(num_units, np.full(num_units, 1 / num_units), size=RESAMPLES)
    drawn_words = drawn @ unit_words  # [resamples]
    return (drawn @ unit_errors)[drawn_words > 0] / drawn_words[drawn_words > 0]


def _quantiles_of_most(figures: np.ndarray) -> tuple[float, float] | None:
    """Refuse an interval where many draws give no figure: those left out would be the extreme ones."""
    return _quantiles(figures) if len(figures) >= RESAMPLES * LEVEL else None


def _quantiles(figures: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(figures, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
