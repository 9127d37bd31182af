"""How likely CTC finds that what is said begins with a text, for texts that grow token by token.

CTC's log-probabilities in, scores of every continuation out. Knows no vocabulary and no model.
"""

import numpy as np

Array = np.ndarray


class PrefixScores:
    """CTC's view of one growing text in each row, in all views of its audio; the text is empty at first.

    Args:
        blank: log-probabilities of the blank; 0 behind a row's last frame.  [rows, frames, views]

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
        """Score each row's text with one more label, whatever may follow.

        Args:
            labels: candidates for the next label.  [rows, candidates]
            log_probs: of these; minus infinity behind a row's last frame.  [rows, frames, candidates, views]

        Returns:
            Log-likelihood of all texts that begin so.  [rows, candidates, views]
        """
        return np.logaddexp.reduce(self._entering(labels) + log_probs, axis=1)

    def extend(self, labels: Array, log_probs: Array) -> None:
        """Put a label behind each row's text.

        Args:
            labels: one for each row.  [rows]
            log_probs: of these, as in `extended`.  [rows, frames, views]
        """
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
