"""Canvases seeded by CTC beside canvases of noise: evaluations of one manifest in, paired differences out."""

from collections.abc import Sequence
from typing import Any

from dgasr.evaluation.interval import paired_interval
from dgasr.evaluation.report import Evaluation
from dgasr.evaluation.scores import word_edits
from dgasr.evaluation.wer import EditCounts

LEAVING_STEPS = (1, 2, 3, 4)
"""Steps after which the share of segments that need no more is told."""


def compare_with(baseline: Evaluation, evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Set evaluations against one of the same manifest, word by word.

    Args:
        baseline: what the others are measured against; it becomes the first row.
        evaluations: the others.

    Returns:
        What `Evaluation.to_json` gives of each, with `difference` (WER less the baseline's), `difference_95` (its
        interval), `left_after` (steps → share of the segments that took no more) and `same_text` (share of the
        utterances with the baseline's very text).
    """
    return [_row(baseline, evaluation) for evaluation in (baseline, *evaluations)]


def _row(baseline: Evaluation, evaluation: Evaluation) -> dict[str, Any]:
    figures = evaluation.to_json()
    steps = [steps for utterance in evaluation.utterances for steps in utterance.num_steps]
    texts = zip(evaluation.utterances, baseline.utterances, strict=True)
    same = sum(utterance.hypothesis == other.hypothesis for utterance, other in texts)
    edits, theirs = _edits(evaluation), _edits(baseline)
    words = sum(count.reference_words for count in edits)
    more = sum(count.errors for count in edits) - sum(count.errors for count in theirs)
    return figures | {
        "difference": more / words if words else None,
        "difference_95": paired_interval(edits, theirs),
        "left_after": {
            limit: sum(spent <= limit for spent in steps) / len(steps) if steps else None for limit in LEAVING_STEPS
        },
        "same_text": same / len(evaluation.utterances),
    }


def _edits(evaluation: Evaluation) -> list[EditCounts]:
    return [word_edits(utterance, evaluation.normalizer) for utterance in evaluation.utterances]
