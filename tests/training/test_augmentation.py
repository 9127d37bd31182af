from dataclasses import replace

import numpy as np
import pytest

from dgasr.records import SAMPLE_RATE_HZ
from dgasr.training.augmentation import (
    AugmentationConfig,
    augment,
    change_speed,
    coloured_noise,
    mask_features,
    non_speech,
    through_telephone,
)

NOTHING = AugmentationConfig(
    speed=0, gain_db=0, colour_probability=0, reverb_probability=0, noise_probability=0, mask_probability=0
)


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def tone(frequency_hz, amplitude=0.3):
    return (amplitude * np.sin(2 * np.pi * frequency_hz * np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ)).astype(
        np.float32
    )


def level_db(waveform):
    return 10 * np.log10(np.mean(np.square(waveform, dtype=float)))


@pytest.mark.parametrize("factor", [0.85, 1.15])
def test_faster_is_shorter_and_higher(factor):
    changed = change_speed(tone(1_000), factor)
    peak_hz = np.abs(np.fft.rfft(changed)).argmax() * SAMPLE_RATE_HZ / changed.size
    assert changed.size == pytest.approx(SAMPLE_RATE_HZ / factor, abs=1)
    assert peak_hz == pytest.approx(1_000 * factor, rel=0.01)
    assert changed.dtype == np.float32


def test_strength_zero_and_changes_that_nobody_hears_change_nothing(rng):
    assert np.array_equal(change_speed(tone(1_000), 1.009), tone(1_000))
    assert np.array_equal(augment(tone(440), AugmentationConfig(), 0.0, rng), tone(440))


def test_augmentation_is_a_function_of_its_generator():
    one, other, different = (augment(tone(440), AugmentationConfig(), 1.0, np.random.default_rng(n)) for n in (7, 7, 8))
    assert np.array_equal(one, other)
    assert not np.array_equal(one, different)


def test_augmented_audio_keeps_its_length_and_range(rng):
    for _ in range(30):
        changed = augment(tone(440, amplitude=0.9), AugmentationConfig(), 1.0, rng)
        assert changed.shape == (SAMPLE_RATE_HZ,)
        assert changed.dtype == np.float32
        assert np.abs(changed).max() <= 1


def test_gain_stays_within_its_bounds(rng):
    config = replace(NOTHING, gain_db=6)
    changes = [level_db(augment(tone(440, 0.1), config, 1.0, rng)) - level_db(tone(440, 0.1)) for _ in range(50)]
    assert min(changes) >= -6.01
    assert max(changes) <= 6.01
    assert max(changes) - min(changes) > 8


def test_noise_has_the_asked_for_distance_to_speech(rng):
    config = replace(NOTHING, noise_probability=1, snr_db=(10.0, 10.0))
    noise = augment(tone(440), config, 1.0, rng) - tone(440)
    assert level_db(tone(440)) - level_db(noise) == pytest.approx(10, abs=0.5)


def test_a_telephone_carries_tones_below_4_khz_only():
    for frequency_hz, carried in ((1_000, True), (3_400, True), (4_400, False), (7_000, False)):
        sent = tone(frequency_hz)[:-1]
        heard = through_telephone(sent)
        assert heard.shape == sent.shape
        assert heard.dtype == np.float32
        assert heard[2000:-2000].std() == pytest.approx(sent.std() if carried else 0, abs=0.01), frequency_hz
    config = replace(NOTHING, telephone_probability=0.5)
    rows = [augment(tone(6_000), config, 0.0, np.random.default_rng(seed)) for seed in range(100)]
    assert 35 <= sum(row.std() < 0.05 for row in rows) <= 65


def test_a_room_leaves_the_direct_sound_in_its_place(rng):
    click = np.zeros(8_000, dtype=np.float32)
    click[1_000] = 0.5
    heard = augment(click, replace(NOTHING, reverb_probability=1), 1.0, rng)
    assert np.abs(heard).argmax() == 1_000
    assert np.abs(heard[:1_000]).max() < 1e-6
    assert np.abs(heard[1_001:]).max() > 1e-3


@pytest.mark.parametrize(("exponent", "fall_db"), [(0, 0), (1, 10), (2, 20)])
def test_coloured_noise_has_unit_power_and_falls_per_decade(rng, exponent, fall_db):
    noise = coloured_noise(16 * SAMPLE_RATE_HZ, exponent, rng)
    power = np.abs(np.fft.rfft(noise)) ** 2
    bins_per_hz = power.size / (SAMPLE_RATE_HZ / 2)
    low, high = (power[round(hz * bins_per_hz) :][: round(20 * bins_per_hz)].mean() for hz in (400, 4_000))
    assert np.mean(noise**2) == pytest.approx(1, rel=1e-3)
    assert 10 * np.log10(low / high) == pytest.approx(fall_db, abs=2)


def test_every_kind_of_non_speech_is_finite_and_as_long_as_asked_for(rng):
    waveforms = [non_speech(5_000, rng) for _ in range(40)]
    assert all(waveform.shape == (5_000,) and waveform.dtype == np.float32 for waveform in waveforms)
    assert all(np.isfinite(waveform).all() for waveform in waveforms)
    assert min(map(level_db, waveforms)) < -70 < -20 < max(map(level_db, waveforms))


@pytest.mark.parametrize(("num_frames", "most_frames"), [(1, 1), (90, 10), (300, 30)])
def test_masks_are_two_bands_of_8_mels_and_100_ms_in_every_800(rng, num_frames, most_frames):
    for _ in range(20):
        features = np.zeros((80, num_frames), dtype=np.float32)
        mask_features(features, -1.0, 1.0, rng)
        masked_frames, masked_mels = (features == -1).all(axis=0).sum(), (features == -1).all(axis=1).sum()
        assert 1 <= masked_frames <= most_frames
        assert 1 <= masked_mels <= (80 if masked_frames == num_frames else 16)
    features = np.zeros((80, num_frames), dtype=np.float32)
    mask_features(features, -1.0, 0.0, rng)
    assert not features.any()
