"""Word timing error: timed words of reference and hypothesis in, milliseconds out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from dgasr.evaluation.interval import statistics_intervals
from dgasr.evaluation.normalise import basic
from dgasr.evaluation.wer import align
from dgasr.records import Word, seconds

HISTOGRAM_EDGES_MS = (-np.inf, *range(-300, 301, 20), np.inf)
"""Between the bars of errors, ms; the outer two bars hold whatever is further off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TimingErrors:
    """Hypothesis minus reference for every word that both have."""

    start_samples: tuple[int, ...] = ()
    end_samples: tuple[int, ...] = ()
    reference_words: int = 0
    """Words that could have been matched."""

    @classmethod
    def total(cls, parts: Iterable["TimingErrors"]) -> "TimingErrors":
        """Put the errors of several utterances together."""
        parts = list(parts)
        return cls(
            start_samples=tuple(error for part in parts for error in part.start_samples),
            end_samples=tuple(error for part in parts for error in part.end_samples),
            reference_words=sum(part.reference_words for part in parts),
        )

    def summary(self) -> dict[str, float | int | None]:
        """Give medians and 90th percentiles of the absolute error (ms), and the signed medians that show a bias.

        Returns:
            The keys of `dgasr evaluate`'s `timing`; every figure is `None` where no word matched.
        """
        figures: dict[str, float | int | None] = {}
        for name, errors in (("start", self.start_samples), ("end", self.end_samples)):
            errors_ms = 1000 * np.array([seconds(error) for error in errors])
            figures[f"{name}_median_ms"] = _percentile(np.abs(errors_ms), 50)
            figures[f"{name}_p90_ms"] = _percentile(np.abs(errors_ms), 90)
            figures[f"{name}_bias_ms"] = _percentile(errors_ms, 50)
        return figures | {"matched_words": len(self.start_samples), "timed_reference_words": self.reference_words}


def timing_figures(parts: Sequence[TimingErrors], units: np.ndarray) -> dict[str, object]:
    """Give `TimingErrors.summary` of all utterances, with 95 % intervals of the two medians and a histogram.

    Args:
        parts: errors of each utterance.
        units: utterances that are drawn together, see `interval.drawn_units`.  [utterances]
    """
    total = TimingErrors.total(parts)
    figures: dict[str, object] = dict(total.summary())
    figures["histogram"] = {
        "edges_ms": list(HISTOGRAM_EDGES_MS[1:-1]), "start": _counts(total.start_samples),
        "end": _counts(total.end_samples),
    }  # fmt: skip
    columns = [np.column_stack([part.start_samples, part.end_samples]).reshape(-1, 2) for part in parts]
    intervals = statistics_intervals(columns, _medians_ms, units) if figures["matched_words"] else [None, None]
    return figures | dict(zip(("start_median_95_ms", "end_median_95_ms"), intervals, strict=True))


def timing_errors(reference: Sequence[Word], hypothesis: Sequence[Word]) -> TimingErrors:
    """Measure how far the words of a hypothesis lie from where they were said.

    Args:
        reference: words with true times, from the utterance's first sample.
        hypothesis: recognised words with times from the same sample.

    Returns:
        Errors of the words that the alignment pairs and that read the same; all other words have no timing error.
    """
    expected, recognised = _compared(reference), _compared(hypothesis)
    matched = [
        (reference[i], hypothesis[j])
        for i, j in align(expected, recognised)
        if i is not None and j is not None and expected[i] == recognised[j]
    ]
    return TimingErrors(
        start_samples=tuple(found.start_sample - true.start_sample for true, found in matched),
        end_samples=tuple(found.end_sample - true.end_sample for true, found in matched),
        reference_words=len(reference),
    )


def _compared(words: Sequence[Word]) -> list[str]:
    """Spell words so that case and punctuation do not matter, one string per word whatever it holds."""
    return [basic(word.word).replace(" ", "") for word in words]


def _counts(errors: Sequence[int]) -> list[int]:
    """Count errors (samples) between `HISTOGRAM_EDGES_MS`."""
    return np.histogram([1000 * seconds(error) for error in errors], HISTOGRAM_EDGES_MS)[0].tolist()


def _medians_ms(errors: np.ndarray) -> list[float]:
    """Give the medians of absolute start and end errors, ms.  [words, 2] samples -> [2]"""
    if not len(errors):
        return [np.nan, np.nan]
    return [1000 * seconds(1) * float(median) for median in np.median(np.abs(errors), axis=0)]


def _percentile(values: np.ndarray, percent: float) -> float | None:
    return round(float(np.percentile(values, percent)), 3) if values.size else None
