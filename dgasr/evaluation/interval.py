"""How far a figure may lie from the true one, given so many utterances: values of each in, an interval out."""

from collections.abc import Callable, Sequence

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95

MIN_SPEAKERS = 10
"""Speakers needed before they are drawn in place of utterances. An interval from a handful of speakers is far too
narrow (one speaker: no width at all), because so few draws never leave the speakers that were recorded."""

Interval = tuple[float, float] | None
"""Lower and upper end at `LEVEL`; `None` where too few draws determine the figure."""


def drawn_units(speakers: Sequence[str | None]) -> np.ndarray:
    """Number the units in which utterances are drawn, from 0: speakers, where enough are known.  [utterances]

    Utterances of one speaker are not independent: who is hard to recognise is so in all of them.
    """
    if None in speakers or len(set(speakers)) < MIN_SPEAKERS:
        return np.arange(len(speakers))
    return np.unique(np.array(speakers), return_inverse=True)[1]


def ratio_interval(above: Sequence[float], below: Sequence[float], units: np.ndarray) -> Interval:
    """Give the interval of a ratio of sums over utterances: errors over words, or one system's errors over another's.

    Drawing utterances (in the units of `drawn_units`), not the rates of both systems, keeps what is hard for both out
    of their ratio, and words of one utterance are not independent.

    Source:
        Bisani and Ney 2004, Bootstrap estimates for confidence intervals in ASR performance evaluation.
    """
    parts = [np.array([pair], dtype=float) for pair in zip(above, below, strict=True)]
    return statistics_intervals(parts, _ratio, units)[0]


def statistics_intervals(
    parts: Sequence[np.ndarray], statistics: Callable[[np.ndarray], Sequence[float]], units: np.ndarray
) -> list[Interval]:
    """Draw utterances with replacement, again and again, the same ones every time, and see where figures fall.

    Args:
        parts: values of each utterance, such as confidences beside right or wrong.  [values, columns] each
        statistics: values of all utterances that were drawn in; figures out, NaN for one that they do not determine.
        units: what `drawn_units` gives.  [utterances]

    Returns:
        The interval of each figure; none where many draws give no figure: those left out would be the extreme ones.
    """
    values = np.concatenate(list(parts))
    owners = np.repeat(units, [len(part) for part in parts])  # [values]
    num_units = int(units.max()) + 1
    generator = np.random.default_rng(0)
    figures = []
    for _ in range(RESAMPLES):
        times_drawn = np.bincount(generator.integers(num_units, size=num_units), minlength=num_units)  # [units]
        figures.append(statistics(values.repeat(times_drawn[owners], axis=0)))
    return [_quantiles(column[np.isfinite(column)]) for column in np.array(figures, dtype=float).T]


def _ratio(values: np.ndarray) -> list[float]:
    above, below = values.sum(axis=0)
    return [above / below if below else np.nan]


def _quantiles(figures: np.ndarray) -> Interval:
    if len(figures) < RESAMPLES * LEVEL:
        return None
    low, high = np.quantile(figures, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
