"""Reference word times: the parts without a model, and Whisper base against word times of another recogniser."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dgasr.evaluation.report import timing_errors, timing_figures
from dgasr.manifests import Utterance, num_samples
from dgasr.records import Word
from tools.reference_words import (
    FRAME_SAMPLES,
    ONSET_DELAY_FRAMES,
    _dynamic_time_warping,
    align_utterance,
    loud_frames,
    text_words,
    token_onsets,
    without_pauses,
)

WHISPER = Path(os.environ.get("DGASR_WHISPER", "/root/parts/whisper-base"))


def attention_to(onsets, num_frames, heads=3, seed=0):
    """Attention whose rows each look at the frames from their onset to the next one, with noise."""
    weights = 0.05 * np.random.default_rng(seed).random((heads, len(onsets), num_frames)) + 0.001
    for row, (start, end) in enumerate(zip(onsets, [*onsets[1:], num_frames], strict=True)):
        weights[:, row, start:end] += 1.0
    return (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32)


def slow_onsets(cost):
    """Best monotonic path by trying every way of placing the onsets one after the other.  [rows, frames]"""
    rows, frames = cost.shape
    sums = np.concatenate([np.zeros((rows, 1)), np.cumsum(cost, axis=1)], axis=1)
    best = {(0, 0): (0.0, [0])}  # (row, onset) → cost of the rows before, onsets
    for row in range(1, rows):
        best = {
            (row, end): min(
                (total + sums[row - 1, end] - sums[row - 1, start], [*path, end])
                for (_, start), (total, path) in best.items()
                if start < end
            )
            for end in range(row, frames)
        }
    _, path = min((total + sums[-1, -1] - sums[-1, start], path) for (_, start), (total, path) in best.items())
    return path


def test_onsets_are_where_attention_moves_on():
    onsets = [0, 12, 30, 41, 70]
    expected = [0, *(onset + ONSET_DELAY_FRAMES for onset in onsets[1:])]
    assert token_onsets(attention_to(onsets, 100)).tolist() == pytest.approx(expected, abs=1)


def test_no_onset_lies_behind_the_end():
    assert token_onsets(attention_to([0, 5, 29], 30))[-1] <= 30


def test_onsets_are_those_of_the_best_path_of_all():
    cost = np.random.default_rng(4).normal(size=(4, 14))
    rows, frames = _dynamic_time_warping(cost)
    onsets = frames[np.flatnonzero(np.diff(rows, prepend=-1))]
    # A path may also go straight down, so that a row has one frame that its neighbour has too.
    slow = slow_onsets(cost)
    total = sum(cost[row, frame] for row, frame in zip(rows, frames, strict=True))
    slow_total = sum(
        cost[row, start:end].sum() for row, (start, end) in enumerate(zip(slow, [*slow[1:], 14], strict=True))
    )
    assert total <= slow_total + 1e-9
    assert (np.diff(onsets) >= 0).all()


def test_quiet_frames_at_both_ends_are_no_part_of_a_word():
    loud = np.array([0, 0, 1, 1, 0, 1, 0, 0], dtype=bool)
    assert without_pauses(0, 8, loud) == (2, 6)
    assert without_pauses(2, 4, loud) == (2, 4)


def test_a_word_ends_at_a_pause_inside_it_and_keeps_its_longer_side():
    loud = np.array([1, 1, 0, 0, 0, 0, 0, 1, 1, 1, 1], dtype=bool)
    assert without_pauses(0, 11, loud) == (7, 11)
    assert without_pauses(0, 8, loud) == (0, 2)


def test_a_word_that_is_quiet_throughout_stays():
    assert without_pauses(1, 3, np.zeros(5, dtype=bool)) == (1, 3)
    assert without_pauses(2, 2, np.ones(5, dtype=bool)) == (2, 2)


def test_a_noisy_room_is_quiet_and_what_is_nearly_as_loud_as_speech_is_not():
    generator = np.random.default_rng(0)
    speech, room = generator.normal(size=(50, FRAME_SAMPLES)), 0.05 * generator.normal(size=(30, FRAME_SAMPLES))
    assert loud_frames(np.concatenate([room, speech]).ravel()).tolist() == [False] * 30 + [True] * 50
    assert loud_frames(np.concatenate([8 * room, speech]).ravel()).all()


def test_pauses_are_quiet_and_the_closure_of_a_plosive_is_not():
    level = np.concatenate([np.zeros(10), np.ones(10), np.zeros(3), np.ones(10), np.zeros(20), np.ones(10)])
    loud = loud_frames(np.repeat(level, FRAME_SAMPLES).astype(np.float32))
    assert loud.tolist() == [False] * 10 + [True] * 23 + [False] * 20 + [True] * 10


def test_characters_are_the_words_of_chinese():
    assert text_words("你好 世界", "zh") == ["你", "好", "世", "界"]
    assert text_words("Hello, world", "en") == ["Hello,", "world"]


@pytest.fixture(scope="module")
def aligner():
    if not (WHISPER / "model.safetensors").is_file():
        pytest.skip(f"no Whisper base at {WHISPER}: set DGASR_WHISPER")
    from tools.reference_words import Aligner

    return Aligner.load(WHISPER)


def read_sphinx(path):
    """Read pocketsphinx's word times; its pauses and noises stand in angle brackets."""
    return [
        Word(
            word=re.sub(r"\(\d\)", "", entry["t"]),
            start_sample=num_samples(entry["b"]),
            end_sample=num_samples(entry["b"] + entry["d"]),
            confidence=1.0,
        )
        for entry in json.loads(path.read_text())["w"]
        if not entry["t"].startswith("<")
    ]


@pytest.mark.slow
def test_times_are_those_of_another_recogniser_within_its_frames(aligner, shared_data):
    errors, num_said = [], 0
    for path in sorted((shared_data / "speech").glob("sense_and_sensibility-*.json")):
        said = read_sphinx(path)
        audio = path.with_suffix(".wav")
        utterance = Utterance(
            audio_filepath=str(audio),
            duration=soundfile.info(audio).duration,
            text=" ".join(word.word for word in said),
            language="en",
        )
        num_said += len(said)
        errors.append(timing_errors(said, align_utterance(aligner, utterance).words))
    figures = timing_figures(errors, np.arange(len(errors)))
    assert figures["matched_words"] == num_said
    assert figures["start_median_ms"] <= 50
    assert figures["end_median_ms"] <= 50


@pytest.mark.slow
def test_a_text_that_nobody_says_gets_no_words(aligner, shared_data):
    audio = str(shared_data / "speech" / "jfk.flac")
    said = (
        "And so, my fellow Americans, ask not what your country can do for you, ask what you can do for your country."
    )
    unsaid = "Purple giraffes quietly negotiate seventeen marmalade treaties beneath collapsing umbrellas."
    rows = [Utterance(audio_filepath=audio, duration=11.0, text=text, language="en") for text in (said, unsaid)]
    right, wrong = (align_utterance(aligner, row).words for row in rows)
    assert len(right) == 22
    assert wrong is None
