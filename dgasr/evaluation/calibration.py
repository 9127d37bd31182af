"""Calibration: how far word confidences differ from the share of right words, and how well they find the wrong ones."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from dgasr.evaluation.interval import statistics_intervals
from dgasr.evaluation.normalise import normalise
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
        """Give mean confidence, accuracy, expected calibration error and AUROC; `None` where words do not tell."""
        confidences, is_right = np.array(self.confidences), np.array(self.is_right, dtype=bool)
        return {
            "words": len(confidences),
            "mean_confidence": float(confidences.mean()) if len(confidences) else None,
            "accuracy": float(is_right.mean()) if len(confidences) else None,
            "expected_calibration_error": expected_calibration_error(confidences, is_right),
            "auroc": area_under_roc(confidences, is_right),
        }

    def bins(self) -> list[dict[str, float | int]]:
        """Give mean confidence, accuracy and number of the words in each bin of confidence that holds any."""
        confidences, is_right = np.array(self.confidences), np.array(self.is_right, dtype=float)
        inside = [_bins(confidences) == number for number in range(NUM_BINS)]
        return [
            {"confidence": float(confidences[own].mean()), "accuracy": float(is_right[own].mean()),
             "words": int(own.sum())}
            for own in inside if own.any()
        ]  # fmt: skip


def judge(reference: str, hypothesis: Sequence[Word], language: str = "en", normalizer: str = "basic") -> Judgements:
    """Decide for every recognised word whether it stands in the reference at its place.

    A word is right if the plain normaliser or the given one finds it so. Whisper's joins spoken digits of the reference
    ("one two" is "12"), which no single word of the hypothesis can equal, and the plain one takes "Mr." and "mister"
    for two words: with either alone, right words would count as wrong.

    Args:
        reference: what was said.
        hypothesis: recognised words with their confidence; those of punctuation alone are not judged.
        language: code; characters are compared where it is written without spaces.
        normalizer: one of `normalise.Normalizer`.
    """
    ways = [_right_words(reference, hypothesis, language, way) for way in dict.fromkeys(("basic", normalizer))]
    judged = [(word, rights) for word, *rights in zip(hypothesis, *ways, strict=True) if rights[0] is not None]
    return Judgements(
        confidences=tuple(word.confidence for word, _ in judged), is_right=tuple(any(rights) for _, rights in judged)
    )


def calibration_figures(parts: Sequence[Judgements], units: np.ndarray) -> dict[str, object]:
    """Give `Judgements.summary` and `bins` of all utterances, with 95 % intervals of calibration error and AUROC.

    Args:
        parts: judgements of each utterance.
        units: utterances that are drawn together, see `interval.drawn_units`.  [utterances]
    """
    total = Judgements.total(parts)
    figures: dict[str, object] = total.summary() | {"bins": total.bins()}
    columns = [np.column_stack([part.confidences, part.is_right]).reshape(-1, 2) for part in parts]
    intervals = statistics_intervals(columns, _error_and_area, units) if figures["words"] else [None, None]
    names = ("expected_calibration_error_95", "auroc_95")
    return figures | dict(zip(names, intervals, strict=True))


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
    # Summed over the words of each bin.  [bins]
    gaps = np.bincount(_bins(confidences), weights=is_right - confidences, minlength=NUM_BINS)
    return float(np.abs(gaps).sum() / len(confidences))


def _bins(confidences: np.ndarray) -> np.ndarray:
    """Number the bins that confidences fall into.  [words]"""
    return np.minimum((confidences * NUM_BINS).astype(int), NUM_BINS - 1)


def area_under_roc(confidences: np.ndarray, is_right: np.ndarray) -> float | None:
    """Probability that a right word has more confidence than a wrong one; equal confidences count half.

    Args:
        confidences: probabilities in [0, 1].  [words]
        is_right: whether each word was right.  [words]

    Returns:
        1 where every wrong word has less confidence than every right one, 0.5 for confidences that say nothing; `None`
        unless there are both right and wrong words.

    Source:
        Hanley and McNeil 1982: the area under the ROC curve is the rank-sum statistic of Mann and Whitney, scaled.
    """
    num_right = int(np.count_nonzero(is_right))
    num_wrong = len(is_right) - num_right
    if not num_right or not num_wrong:
        return None
    rank_sum = rankdata(confidences)[is_right.astype(bool)].sum()
    return float((rank_sum - num_right * (num_right + 1) / 2) / (num_right * num_wrong))


def _right_words(reference: str, hypothesis: Sequence[Word], language: str, normalizer: str) -> list[bool | None]:
    """Tell which words are right under one normaliser; `None` for words that it leaves nothing of.

    A normaliser may make several words of one ("won't", "ill-disposed"): all of them have to be right.
    """
    expected = normalise(reference, language, normalizer)
    spelled = [normalise(word.word, language, normalizer) for word in hypothesis]
    recognised = [piece for pieces in spelled for piece in pieces]
    right = {
        j for i, j in align(expected, recognised) if i is not None and j is not None and expected[i] == recognised[j]
    }
    position, found = 0, list[bool | None]()
    for pieces in spelled:
        places = range(position, position + len(pieces))
        found.append(all(place in right for place in places) if pieces else None)
        position += len(pieces)
    return found


def _error_and_area(values: np.ndarray) -> tuple[float, float]:
    """Give calibration error and AUROC of drawn words, NaN for what they do not determine.  [words, 2]"""
    confidences, is_right = values[:, 0], values[:, 1] > 0
    error, area = expected_calibration_error(confidences, is_right), area_under_roc(confidences, is_right)
    return (np.nan if error is None else error, np.nan if area is None else area)
