"""Forced alignment against every path there is, and against a case worked by hand."""

import itertools
from itertools import pairwise, product

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dgasr.alignment.ctc import PrefixScores, forced_alignment, min_frames

BLANK = -1


def random_log_probs(num_frames, num_labels, seed):
    logits = np.random.default_rng(seed).normal(scale=2.0, size=(num_frames, 1 + num_labels))
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def path_score(log_probs, positions):
    return sum(log_probs[frame, position + 1] for frame, position in enumerate(positions))


def path_of(spans, num_frames):
    positions = [-1] * num_frames
    for position, span in enumerate(spans):
        positions[span.start_frame : span.end_frame] = [position] * (span.end_frame - span.start_frame)
    return positions


def says(positions, labels):
    """Whether a path of label positions (-1 blank) names every position in order, equal neighbours blank-separated."""
    met = [
        position for position, previous in zip(positions, [-1, *positions[:-1]], strict=True) if position != previous
    ]
    spoken = [position for position in met if position >= 0]
    touching = any(a >= 0 and b >= 0 and a != b and labels[a] == labels[b] for a, b in pairwise(positions))
    return spoken == list(range(len(labels))) and not touching


@pytest.mark.parametrize("labels", [[7], [7, 8], [7, 7], [7, 8, 7], [7, 7, 8], [5, 5, 5]])
@pytest.mark.parametrize("num_frames", [5, 6])
def test_the_path_found_is_the_best_of_all_paths(labels, num_frames):
    log_probs = random_log_probs(num_frames, len(labels), seed=len(labels) + num_frames)
    best = max(
        path_score(log_probs, positions)
        for positions in product(range(-1, len(labels)), repeat=num_frames)
        if says(positions, labels)
    )
    found = path_of(forced_alignment(log_probs, labels), num_frames)
    assert says(found, labels)
    assert path_score(log_probs, found) == pytest.approx(best)


def test_an_alignment_worked_by_hand():
    # frames:        blank  a     b
    probabilities = [[0.80, 0.15, 0.05],
                     [0.10, 0.85, 0.05],
                     [0.30, 0.60, 0.10],
                     [0.70, 0.10, 0.20],
                     [0.05, 0.05, 0.90],
                     [0.90, 0.05, 0.05]]  # fmt: skip
    a, b = forced_alignment(np.log(probabilities), [3, 4])
    assert (a.start_frame, a.end_frame, b.start_frame, b.end_frame) == (1, 3, 4, 5)
    assert np.exp([a.log_prob, b.log_prob]) == pytest.approx([0.85, 0.9])


def test_equal_neighbours_are_kept_apart_by_a_blank():
    log_probs = np.log([[0.1, 0.45, 0.45]] * 3)
    first, second = forced_alignment(log_probs, [3, 3])
    assert (first.start_frame, first.end_frame, second.start_frame, second.end_frame) == (0, 1, 2, 3)


def test_different_neighbours_may_touch():
    log_probs = np.log([[0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    first, second = forced_alignment(log_probs, [3, 4])
    assert (first.end_frame, second.start_frame) == (1, 1)


def test_no_labels_have_no_spans():
    assert forced_alignment(random_log_probs(4, 0, seed=0), []) == []


def test_every_label_gets_a_frame_when_frames_just_suffice():
    labels = [1, 1, 2]
    spans = forced_alignment(random_log_probs(min_frames(labels), 3, seed=0), labels)
    assert [(span.start_frame, span.end_frame) for span in spans] == [(0, 1), (2, 3), (3, 4)]


def test_zero_probabilities_do_not_break_the_path():
    with np.errstate(divide="ignore"):
        log_probs = np.log([[1.0, 0.0, 0.0]] * 4)
    first, second = forced_alignment(log_probs, [3, 4])
    assert first.end_frame <= second.start_frame < second.end_frame <= 4


def test_a_whole_window_of_many_labels_aligns_in_order():
    labels = list(np.random.default_rng(0).integers(5, 9, size=250))
    spans = forced_alignment(random_log_probs(1500, 250, seed=0).astype(np.float32), labels)
    assert all(left.end_frame <= right.start_frame for left, right in pairwise(spans))
    assert all(span.start_frame < span.end_frame for span in spans)


@pytest.mark.parametrize(("labels", "frames"), [([], 0), ([1], 1), ([1, 2], 2), ([1, 1], 3), ([1, 1, 1, 2], 6)])
def test_min_frames_counts_labels_and_the_blanks_between_equal_ones(labels, frames):
    assert min_frames(labels) == frames


FRAMES, LABELS, VIEWS = 5, 3, 2


def random_views(rows: int = 2, frames: int = FRAMES, seed: int = 0) -> np.ndarray:
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
    log_probs = random_views()
    candidates = np.tile(np.arange(1, 1 + LABELS), (len(log_probs), 1))
    scores = grown(log_probs, text)
    extended, whole = scores.extended(candidates, log_probs[:, :, 1:]), scores.whole()
    for row, view in itertools.product(range(len(log_probs)), range(VIEWS)):
        own = log_probs[row, :, :, view]
        assert whole[row, view] == pytest.approx(begun_with(own, text, is_whole=True))
        for index, label in enumerate(candidates[row]):
            assert extended[row, index, view] == pytest.approx(begun_with(own, (*text, label), is_whole=False))


def test_a_whole_text_is_as_likely_as_torch_finds_it():
    log_probs, text = random_views(rows=3, frames=40, seed=1), (1, 2, 2, 3, 1, 1)
    for view in range(VIEWS):
        loss = F.ctc_loss(
            torch.from_numpy(log_probs[..., view]).transpose(0, 1), torch.tensor(text).expand(3, -1),
            torch.tensor([40] * 3), torch.tensor([len(text)] * 3), reduction="none",
        )  # fmt: skip
        assert grown(log_probs, text).whole()[:, view] == pytest.approx(-loss.numpy())


def test_frames_behind_a_row_s_end_change_nothing():
    log_probs, text = random_views(), (1, 2)
    longer = np.concatenate([log_probs, np.full((2, 3, 1 + LABELS, VIEWS), -np.inf)], axis=1)
    longer[:, FRAMES:, 0] = 0.0
    candidates = np.tile(np.arange(1, 1 + LABELS), (2, 1))
    wanted, found = grown(log_probs, text), grown(longer, text)
    assert found.whole() == pytest.approx(wanted.whole())
    assert found.extended(candidates, longer[:, :, 1:]) == pytest.approx(
        wanted.extended(candidates, log_probs[:, :, 1:])
    )


def test_rows_do_not_depend_on_each_other():
    log_probs = random_views(rows=3)
    scores = PrefixScores(log_probs[:, :, 0])
    scores.extend(np.array([1, 2, 3]), np.stack([log_probs[row, :, row + 1] for row in range(3)]))
    for row in range(3):
        assert np.array_equal(scores.whole()[row], grown(log_probs[row : row + 1], (row + 1,)).whole()[0])
