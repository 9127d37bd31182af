"""Levels and pauses of a waveform."""

import numpy as np
import pytest

from dgasr.segmentation.loudness import find_pauses, frame_power, level_dbfs, pause_threshold_dbfs


def test_power_is_that_of_each_frame_the_last_one_shorter():
    samples = np.tile(np.array([0.5, -0.5], dtype=np.float32), 200)
    np.testing.assert_allclose(frame_power(samples), [0.25, 0.25, 0.25])


def test_a_constant_offset_has_no_power():
    assert frame_power(np.full(320, 0.7, dtype=np.float32)).max() == pytest.approx(0.0, abs=1e-7)


def test_full_scale_is_zero_db():
    np.testing.assert_allclose(level_dbfs(np.ones(20)), 0.0, atol=1e-9)


def test_the_threshold_lies_between_background_and_speech():
    levels = np.concatenate([np.full(500, -60.0), np.full(500, -20.0)])
    assert pause_threshold_dbfs(levels, 0.3) == pytest.approx(-48.0)


def test_digital_silence_says_nothing_of_the_background():
    levels = np.concatenate([np.full(5000, -100.0), np.full(500, -60.0), np.full(500, -20.0)])
    assert pause_threshold_dbfs(levels, 0.3) == pytest.approx(-48.0)


def test_where_nothing_was_recorded_all_is_a_pause():
    levels = np.full(100, -100.0)
    assert find_pauses(levels, pause_threshold_dbfs(levels, 0.3)) == [(0, 100)]


def test_pauses_are_half_open_intervals():
    levels = np.concatenate([np.full(10, -60.0), np.full(20, -10.0), np.full(30, -60.0)])
    assert find_pauses(levels, -30.0) == [(0, 10), (30, 60)]


def test_a_click_does_not_end_a_pause():
    levels = np.full(60, -60.0)
    levels[30:35] = -10.0
    assert find_pauses(levels, -30.0) == [(0, 60)]
