"""CTC's prefix scores against all paths listed one by one, and against torch's loss."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dgasr.alignment.ctc import PrefixScores

FRAMES, LABELS, VIEWS = 5, 3, 2


def random_log_probs(rows: int = 2, frames: int = FRAMES, seed: int = 0) -> np.ndarray:
    """Of the blank (0) and of labels; [rows, frames, 1 + labels, views]"""
    logits = np.random.default_rng(seed).standard_normal((rows, frames, 1 + LABELS, VIEWS)) * 2
    return logits - np.logaddexp.reduce(logits, axis=2, keepdims=True)


def begun_with(log_probs: np.ndarray, prefix: tuple[int, ...], *, is_whole: bool) -> float:
    """Add up all paths whose text is, or begins with, `prefix`; log_probs [frames, 1 + labels]."""
    total = -np.inf
    for path in itertools.product(range(1 + LABELS), repeat=len(log_probs)):
        text = tuple(label for label, _ in itertools.groupby(path) if label)
        if (text if is_whole else text[: len(prefix)]) == prefix:
            total = np.logaddexp(total, sum(log_probs[frame, label] for frame, label in enumerate(path)))
    return total


def grown(log_probs: np.ndarray, text: tuple[int, ...]) -> PrefixScores:
    scores = PrefixScores(log_probs[:, :, 0])
    for label in text:
        scores.extend(np.full(len(log_probs), label), log_probs[:, :, label])
    return scores


@pytest.mark.parametrize("text", [(), (1,), (1, 1), (2, 1), (3, 3, 2)])
def test_scores_equal_the_sum_over_all_paths(text):
    log_probs = random_log_probs()
    candidates = np.tile(np.arange(1, 1 + LABELS), (len(log_probs), 1))
    scores = grown(log_probs, text)
    extended, whole = scores.extended(candidates, log_probs[:, :, 1:]), scores.whole()
    for row, view in itertools.product(range(len(log_probs)), range(VIEWS)):
        own = log_probs[row, :, :, view]
        assert whole[row, view] == pytest.approx(begun_with(own, text, is_whole=True))
        for index, label in enumerate(candidates[row]):
            assert extended[row, index, view] == pytest.approx(begun_with(own, (*text, label), is_whole=False))


def test_a_whole_text_is_as_likely_as_torch_finds_it():
    log_probs, text = random_log_probs(rows=3, frames=40, seed=1), (1, 2, 2, 3, 1, 1)
    for view in range(VIEWS):
        loss = F.ctc_loss(
            torch.from_numpy(log_probs[..., view]).transpose(0, 1), torch.tensor(text).expand(3, -1),
            torch.tensor([40] * 3), torch.tensor([len(text)] * 3), reduction="none",
        )  # fmt: skip
        assert grown(log_probs, text).whole()[:, view] == pytest.approx(-loss.numpy())


def test_frames_behind_a_row_s_end_change_nothing():
    log_probs, text = random_log_probs(), (1, 2)
    longer = np.concatenate([log_probs, np.full((2, 3, 1 + LABELS, VIEWS), -np.inf)], axis=1)
    longer[:, FRAMES:, 0] = 0.0
    candidates = np.tile(np.arange(1, 1 + LABELS), (2, 1))
    wanted, found = grown(log_probs, text), grown(longer, text)
    assert found.whole() == pytest.approx(wanted.whole())
    assert found.extended(candidates, longer[:, :, 1:]) == pytest.approx(
        wanted.extended(candidates, log_probs[:, :, 1:])
    )


def test_rows_do_not_depend_on_each_other():
    log_probs = random_log_probs(rows=3)
    scores = PrefixScores(log_probs[:, :, 0])
    scores.extend(np.array([1, 2, 3]), np.stack([log_probs[row, :, row + 1] for row in range(3)]))
    for row in range(3):
        assert np.array_equal(scores.whole()[row], grown(log_probs[row : row + 1], (row + 1,)).whole()[0])
