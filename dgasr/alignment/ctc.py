"""CTC posteriors in; the frames of every label out, and how likely it finds that what is said begins with a text.

Knows no vocabulary, no audio and no model.
Frames are counted on the grid of the caller's posteriors; which samples a frame stands for is `words.py`'s matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

Array = np.ndarray

IMPOSSIBLE = -1e4
"""Log-probability that stands for zero probability."""


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """The frames `[start_frame, end_frame)` in which one label sounds."""

    start_frame: int
    end_frame: int
    log_prob: float
    """Highest log-probability of the label in these frames, nats: a peak is all that CTC needs to be sure."""


def min_frames(labels: Sequence[int]) -> int:
    """Count the frames that `labels` need: one each, and a blank between equal neighbours."""
    return len(labels) + sum(left == right for left, right in pairwise(labels))


def forced_alignment(log_probs: Array, labels: Sequence[int]) -> list[TokenSpan]:
    """Find the likeliest CTC path that says `labels`.

    Args:
        log_probs: log-probabilities; column 0 is the blank, column k + 1 that of `labels[k]`.  [frames, 1 + labels]
        labels: ids without blanks, at most as many as `min_frames` lets the frames hold; only their equality matters.

    Returns:
        One span per label, in order, not overlapping; of equally likely paths the one that stays longest.

    Source:
        Viterbi over the topology of Graves et al. 2006, section 4.1.
    """
    assert min_frames(labels) <= len(log_probs), "ask min_frames before aligning"
    if not labels:
        return []
    scores = _best_scores(log_probs, labels)
    path = _trace_back(scores, _skippable(labels))
    spans = []
    for position in range(len(labels)):
        start, end = np.searchsorted(path, [2 * position + 1, 2 * position + 2])
        peak = float(log_probs[start:end, position + 1].max())
        spans.append(TokenSpan(int(start), int(end), peak))
    return spans


def _skippable(labels: Sequence[int]) -> Array:
    """Tell of every state whether it may follow the one before last: labels that differ from the label before."""
    skippable = np.zeros(2 * len(labels) + 1, dtype=bool)
    skippable[3::2] = [left != right for left, right in pairwise(labels)]
    return skippable


def _best_scores(log_probs: Array, labels: Sequence[int]) -> Array:
    """Score the likeliest path into every state: blank, label, blank, …, blank.  [frames, 2 * labels + 1]."""
    num_frames, num_states = len(log_probs), 2 * len(labels) + 1
    columns = np.zeros(num_states, dtype=np.intp)
    columns[1::2] = np.arange(1, len(labels) + 1)
    # Finite scores alone: minus infinity means "no path leads here", not "the model thinks it impossible".
    emitted = np.maximum(log_probs.astype(np.float64), IMPOSSIBLE)[:, columns]  # [frames, states]
    forbidden = np.where(_skippable(labels), 0.0, -np.inf)
    # Two states that are never reached stand before the first, so that every state has two before it.
    scores = np.full((num_frames, num_states + 2), -np.inf)
    scores[0, 2:4] = emitted[0, :2]
    skipped = np.empty(num_states)
    for previous, current, emission in zip(scores[:-1], scores[1:], emitted[1:], strict=True):
        best = np.maximum(previous[2:], previous[1:-1], out=current[2:])
        np.add(previous[:-2], forbidden, out=skipped)
        np.maximum(best, skipped, out=best)
        best += emission
    return scores[:, 2:]


def _trace_back(scores: Array, skippable: Array) -> Array:
    """Follow the likeliest path back from its end; returns the state of every frame, never falling.  [frames]."""
    num_frames, num_states = scores.shape
    path = np.empty(num_frames, dtype=np.intp)
    state = num_states - 1 if scores[-1, -1] >= scores[-1, -2] else num_states - 2
    for frame in range(num_frames - 1, 0, -1):
        path[frame] = state
        before = scores[frame - 1]
        best = state
        if state >= 1 and before[state - 1] > before[best]:
            best = state - 1
        if skippable[state] and before[state - 2] > before[best]:
            best = state - 2
        state = best
    path[0] = state
    return path


class PrefixScores:
    """CTC's view of one growing text in each row, in all views of its audio; the text is empty at first.

    `blank` are log-probabilities of the blank; 0 behind a row's last frame.  [rows, frames, views]

    Source:
        Watanabe et al. 2017, "Hybrid CTC/Attention Architecture", section III.C, after Graves 2008.
    """

    def __init__(self, blank: Array) -> None:
        self._blank = blank.astype(np.float64)
        self._in_blank = self._blank.cumsum(axis=1)
        """Of all paths over the frames so far that say the text and end in a blank."""
        self._in_label = np.full_like(self._blank, -np.inf)
        """Of those that end in its last label."""
        self._last = np.full(len(blank), -1)

    def whole(self) -> Array:
        """Return the log-likelihood of the texts as they are.  [rows, views]"""
        return np.logaddexp(self._in_blank[:, -1], self._in_label[:, -1])

    def extended(self, labels: Array, log_probs: Array) -> Array:
        """Score each row's text with one more label, whatever may follow: how likely all texts are that begin so.

        Of candidates for the next label [rows, candidates] and their log-probabilities, minus infinity behind a row's
        last frame, [rows, frames, candidates, views] → [rows, candidates, views].
        """
        return np.logaddexp.reduce(self._entering(labels) + log_probs, axis=1)

    def extend(self, labels: Array, log_probs: Array) -> None:
        """Put a label behind each row's text, [rows]; log-probabilities as in `extended`, [rows, frames, views]."""
        entered = self._entering(labels[:, None])[:, :, 0] + log_probs
        in_label = np.full_like(self._in_label[:, 0], -np.inf)
        in_blank = in_label
        for frame in range(self._blank.shape[1]):
            in_blank = np.logaddexp(in_blank, in_label) + self._blank[:, frame]
            in_label = np.logaddexp(entered[:, frame], in_label + log_probs[:, frame])
            self._in_label[:, frame], self._in_blank[:, frame] = in_label, in_blank
        self._last = labels.copy()

    def select(self, rows: Array) -> None:
        """Go on from other rows' texts, of the same audio; [rows]"""
        self._in_blank, self._in_label, self._last = self._in_blank[rows], self._in_label[rows], self._last[rows]

    def _entering(self, labels: Array) -> Array:
        """Return how likely the text has been said before each frame, and the label may follow.

        A label that equals the last one needs a blank between.  [rows, frames, candidates, views]
        """
        said, ends_in_it = np.logaddexp(self._in_blank, self._in_label), labels == self._last[:, None]
        before = np.where(ends_in_it[:, None, :, None], self._in_blank[:, :, None], said[:, :, None])
        first = np.where(self._last < 0, 0.0, -np.inf)[:, None, None, None]
        return np.concatenate([np.broadcast_to(first, before[:, :1].shape), before[:, :-1]], axis=1)
