"""Features equal the extractor that the encoder was trained with."""

import numpy as np
import pytest
from transformers import WhisperFeatureExtractor

from dgasr.errors import ConfigError, TooShortError
from dgasr.features import FeatureConfig, log_mel, pad_features, segment_features
from dgasr.records import SAMPLE_RATE_HZ, Segment


def whisper_features(waveform: np.ndarray, config: FeatureConfig) -> np.ndarray:
    extractor = WhisperFeatureExtractor(
        feature_size=config.num_mel_bins, chunk_length=config.window_samples // SAMPLE_RATE_HZ
    )
    return extractor(waveform, sampling_rate=SAMPLE_RATE_HZ, return_tensors="np")["input_features"][0]


def make_segment(num_samples: int) -> Segment:
    return Segment(
        recording_id="0" * 32,
        segment_index=0,
        channel=0,
        start_sample=0,
        end_sample=num_samples,
        kind="speech",
        cut="end",
    )


def noise(num_samples: int) -> np.ndarray:
    generator = np.random.default_rng(num_samples)
    return (0.1 * generator.standard_normal(num_samples)).astype(np.float32)


def padded(waveform: np.ndarray, config: FeatureConfig) -> np.ndarray:
    features, pad_value = log_mel(waveform, config)
    window = np.full((config.num_mel_bins, config.window_frames), pad_value, dtype=np.float32)
    window[:, : features.shape[1]] = features
    return window


WINDOW = 8 * SAMPLE_RATE_HZ


@pytest.mark.parametrize("missing", [0, 1, 39, 40, 41, 159, 160, 199, 200, 201, 399, 400, 401, 5000])
def test_features_equal_whisper_however_near_the_audio_comes_to_the_end_of_the_window(missing):
    config = FeatureConfig(window_samples=WINDOW)
    waveform = noise(WINDOW - missing)
    np.testing.assert_allclose(padded(waveform, config), whisper_features(waveform, config), atol=1e-4)


@pytest.mark.parametrize("num_samples", [1, 2, 100, 119, 120, 121, 122, 200, 201, 280, 281, 282, 16000])
def test_features_equal_whisper_on_short_audio(num_samples):
    config = FeatureConfig(window_samples=WINDOW)
    waveform = noise(num_samples)
    np.testing.assert_allclose(padded(waveform, config), whisper_features(waveform, config), atol=1e-4)


@pytest.mark.parametrize(("window_s", "num_mel_bins"), [(2, 80), (30, 80), (30, 128)])
def test_features_equal_whisper_at_any_window_and_number_of_bands(window_s, num_mel_bins):
    config = FeatureConfig(window_samples=window_s * SAMPLE_RATE_HZ, num_mel_bins=num_mel_bins)
    waveform = noise(config.window_samples * 2 // 3)
    np.testing.assert_allclose(padded(waveform, config), whisper_features(waveform, config), atol=1e-4)


def test_digital_silence_equals_whisper():
    config = FeatureConfig(window_samples=WINDOW)
    waveform = np.zeros(1000, dtype=np.float32)
    np.testing.assert_allclose(padded(waveform, config), whisper_features(waveform, config), atol=1e-4)


def test_only_frames_of_audio_are_kept():
    config = FeatureConfig(window_samples=WINDOW)
    features, _ = log_mel(noise(SAMPLE_RATE_HZ), config)
    assert features.shape == (80, 102)


def test_padding_restores_the_window_in_half_precision():
    config = FeatureConfig(window_samples=WINDOW)
    waveforms = [noise(num_samples) for num_samples in (SAMPLE_RATE_HZ, WINDOW)]
    batch = pad_features([segment_features(make_segment(w.size), w, config) for w in waveforms], config)
    expected = np.stack([whisper_features(waveform, config) for waveform in waveforms])
    np.testing.assert_allclose(batch, expected, atol=2e-3)


def test_features_of_nothing_are_refused():
    with pytest.raises(TooShortError):
        log_mel(np.zeros(0, dtype=np.float32), FeatureConfig(window_samples=WINDOW))


def test_a_segment_longer_than_the_window_is_refused():
    with pytest.raises(ConfigError, match="does not fit"):
        log_mel(noise(WINDOW + 1), FeatureConfig(window_samples=WINDOW))


def test_a_window_that_is_no_whole_number_of_frames_is_refused():
    with pytest.raises(ConfigError, match="multiple"):
        FeatureConfig(window_samples=WINDOW + 1)
