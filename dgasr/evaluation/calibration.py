"""Calibration: word confidences and whether the words were right in, how far the two disagree out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from dgasr.evaluation.normalise import basic
from dgasr.evaluation.wer import align
from dgasr.records import Word

NUM_BINS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgements:
    """Confidence of every recognised word and whether it was right."""

    confidences: tuple[float, ...] = ()
    is_right: tuple[bool, ...] = ()

    @classmethod
    def total(cls, parts: Iterable["Judgements"]) -> "Judgements":
        """Put the judgements of several utterances together."""
        parts = list(parts)
        return cls(
            confidences=tuple(confidence for part in parts for confidence in part.confidences),
            is_right=tuple(right for part in parts for right in part.is_right),
        )

    def summary(self) -> dict[str, float | int | None]:
        """Give mean confidence, accuracy and expected calibration error; all `None` where no word was recognised."""
        confidences, is_right = np.array(self.confidences), np.array(self.is_right, dtype=bool)
        return {
            "words": len(confidences),
            "mean_confidence": float(confidences.mean()) if len(confidences) else None,
            "accuracy": float(is_right.mean()) if len(confidences) else None,
            "expected_calibration_error": expected_calibration_error(confidences, is_right),
        }


def judge(reference: str, hypothesis: Sequence[Word]) -> Judgements:
    """Decide for every recognised word whether it stands in the reference at its place.

    Args:
        reference: what was said.
        hypothesis: recognised words with their confidence.
    """
    said, heard = basic(reference).split(), [basic(word.word).replace(" ", "") for word in hypothesis]
    right = {j for i, j in align(said, heard) if i is not None and j is not None and said[i] == heard[j]}
    return Judgements(
        confidences=tuple(word.confidence for word in hypothesis),
        is_right=tuple(j in right for j in range(len(hypothesis))),
    )


def expected_calibration_error(confidences: np.ndarray, is_right: np.ndarray) -> float | None:
    """Average |accuracy - confidence| over ten bins of confidence, weighted by how many words fall into each.

    Args:
        confidences: probabilities in [0, 1].  [words]
        is_right: whether each word was right.  [words]

    Returns:
        A share in [0, 1], 0 for perfect calibration; `None` without words.

    Source:
        Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3.
    """
    if not len(confidences):
        return None
    bins = np.minimum((confidences * NUM_BINS).astype(int), NUM_BINS - 1)  # [words]
    gaps = np.bincount(bins, weights=is_right - confidences, minlength=NUM_BINS)  # [bins], summed over their words
    return float(np.abs(gaps).sum() / len(confidences))
