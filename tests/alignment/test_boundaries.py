"""Snapping on envelopes drawn by hand, and on speech joined with known gaps."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from dgasr.alignment.words import AlignmentConfig, Loudness, loudness, out_of_silence, quiet_stretches, snap_to_sound
from dgasr.features import FeatureConfig, log_mel

HOP = 160
CONFIG = AlignmentConfig()
DIGITS = Path(__file__).resolve().parents[2] / "../shared/data/fsdd/recordings"


def envelope(*stretches):
    """Loudness of stretches (milliseconds, dB); an edge between them lies on the first frame of the louder one."""
    return Loudness(np.concatenate([np.full(ms // 10, float(db)) for ms, db in stretches]), HOP)


def snap_ms(edges, pivots, sound, config=CONFIG):
    edges, pivots = np.array(edges, dtype=float) * 16, np.array(pivots, dtype=float) * 16
    return (snap_to_sound(edges, pivots, quiet_stretches(sound, config), config) / 16).tolist()


ONE_WORD = envelope((300, -80), (400, -20), (300, -80))


def test_edges_move_to_where_sound_begins_and_ends():
    assert snap_ms([[370, 610]], [500], ONE_WORD) == [[300, 690]]


def test_an_edge_inside_the_pause_moves_back_to_the_word():
    assert snap_ms([[210, 790]], [500], ONE_WORD) == [[300, 690]]


def test_a_word_heard_only_at_its_beginning_ends_where_its_sound_ends():
    assert snap_ms([[310, 380]], [350], ONE_WORD) == [[300, 690]]


def test_a_pause_too_far_away_leaves_the_edge_alone():
    config = AlignmentConfig(max_snap_ms=120.0)
    assert snap_ms([[440, 560]], [500], ONE_WORD, config) == [[440, 560]]


def test_two_words_share_the_pause_between_them():
    sound = envelope((300, -80), (400, -20), (100, -80), (400, -20), (300, -80))
    assert snap_ms([[330, 640], [850, 1150]], [500, 1000], sound) == [[300, 690], [800, 1190]]


def test_a_closure_inside_a_word_is_not_taken_for_the_pause():
    sound = envelope((300, -80), (300, -20), (60, -80), (140, -20), (80, -80), (400, -20), (300, -80))
    assert snap_ms([[300, 720], [930, 1280]], [450, 1100], sound) == [[300, 790], [880, 1270]]


def test_words_that_run_into_each_other_keep_their_edges():
    sound = envelope((300, -80), (800, -20), (300, -80))
    assert snap_ms([[310, 690], [720, 1080]], [500, 900], sound) == [[300, 690], [720, 1090]]


def test_a_dip_of_two_frames_is_no_pause():
    sound = envelope((300, -80), (390, -20), (20, -80), (390, -20), (300, -80))
    assert snap_ms([[300, 680], [720, 1090]], [500, 900], sound) == [[300, 680], [720, 1090]]


def test_no_edge_crosses_its_words_pivot():
    sound = envelope((200, -80), (200, -20), (100, -80), (200, -20), (300, -80))
    assert snap_ms([[395, 600]], [395], sound) == [[200, 690]]


def moved_ms(pivots, sound, config=CONFIG):
    return (out_of_silence(np.array(pivots, dtype=float) * 16, quiet_stretches(sound, config), config) / 16).tolist()


def test_a_word_said_before_the_first_sound_or_behind_the_last_is_said_in_it():
    assert moved_ms([260, 500, 720], ONE_WORD) == [300, 500, 690]
    assert moved_ms([260], ONE_WORD, AlignmentConfig(max_snap_ms=30.0)) == [260]


def test_a_word_in_a_pause_between_words_stays():
    sound = envelope((300, -80), (400, -20), (100, -80), (400, -20), (300, -80))
    assert moved_ms([500, 750, 1000], sound) == [500, 750, 1000]


def test_even_loudness_moves_nothing():
    assert moved_ms([250], envelope((500, -40))) == [250]
    assert snap_ms([[100, 400]], [250], envelope((600, -30))) == [[100, 400]]


def test_no_frames_move_nothing():
    assert snap_ms([[100, 400]], [250], Loudness(np.empty(0), HOP)) == [[100, 400]]


def test_no_words_have_no_edges():
    assert snap_to_sound(np.empty((0, 2)), np.empty(0), quiet_stretches(ONE_WORD, CONFIG), CONFIG).shape == (0, 2)


def test_loudness_is_in_decibels():
    waveform = 0.1 * np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    config = FeatureConfig(window_samples=16_000)
    quiet, loud = (loudness(log_mel(gain * waveform, config)[0], HOP).db for gain in (1.0, 10.0))
    assert np.allclose(loud - quiet, 20.0, atol=0.01)


@pytest.mark.skipif(not DIGITS.is_dir(), reason="needs ../shared/data/fsdd")
def test_rough_edges_of_real_digits_become_exact_to_a_frame():
    generator = np.random.default_rng(0)
    pieces, truth, position = [], [], 4800
    for digit in range(10):
        recording, rate_hz = soundfile.read(DIGITS / f"{digit}_jackson_7.wav", dtype="float32")
        pieces += [np.zeros(4800 if digit == 0 else 1600, np.float32), soxr.resample(recording, rate_hz, 16_000)]
        position += 1600 if digit else 0
        truth.append((position, position + pieces[-1].size))
        position += pieces[-1].size
    waveform = np.concatenate([*pieces, np.zeros(4800, np.float32)])
    waveform += 1e-4 * generator.standard_normal(waveform.size).astype(np.float32)
    features, _ = log_mel(waveform, FeatureConfig(window_samples=480_000))
    edges = np.array(truth, dtype=float)
    rough = edges + generator.uniform(-60, 60, size=edges.shape) * 16
    pauses = quiet_stretches(loudness(features.astype(np.float16), HOP), CONFIG)
    snapped = snap_to_sound(rough, edges.mean(axis=1), pauses, CONFIG)
    error_ms = np.abs(snapped - edges) / 16
    assert np.median(error_ms) <= 10
    assert np.percentile(error_ms, 90) <= 20
