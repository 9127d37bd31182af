"""Forced alignment against every path there is, and against a case worked by hand."""

from itertools import pairwise, product

import numpy as np
import pytest

from dgasr.alignment.ctc import forced_alignment, min_frames

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
