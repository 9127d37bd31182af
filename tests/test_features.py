"""Features equal the extractor that the encoder was trained with."""

import numpy as np
import pytest
from transformers import WhisperFeatureExtractor

from dgasr.errors import ConfigError, TooShortError
from dgasr.features import FeatureConfig, log_mel, pad_features, segment_features
from dgasr.records import SAMPLE_RATE_HZ

WINDOW = 8 * SAMPLE_RATE_HZ


def whisper_features(waveform: np.ndarray, config: FeatureConfig) -> np.ndarray:
    extractor = WhisperFeatureExtractor(
        feature_size=config.num_mel_bins, chunk_length=config.window_samples // SAMPLE_RATE_HZ
    )
    return extractor(waveform, sampling_rate=SAMPLE_RATE_HZ, return_tensors="np")["input_features"][0]


def noise(num_samples: int) -> np.ndarray:
    generator = np.random.default_rng(num_samples)
    return (0.1 * generator.standard_normal(num_samples)).astype(np.float32)


def padded(waveform: np.ndarray, config: FeatureConfig) -> np.ndarray:
    features, pad_value = log_mel(waveform, config)
    window = np.full((config.num_mel_bins, config.window_frames), pad_value, dtype=np.float32)
    window[:, : features.shape[1]] = features
    return window


@pytest.mark.parametrize(
    ("waveform", "window_s", "num_mel_bins"),
    [
        # However near the audio comes to the end of the window.
        *((noise(WINDOW - missing), 8, 80) for missing in (0, 1, 39, 40, 41, 159, 160, 199, 200, 201, 399, 400, 401)),
        *((noise(size), 8, 80) for size in (1, 2, 100, 119, 120, 121, 122, 200, 201, 280, 281, 282, 16_000)),
        *((noise(10_667 * window_s), window_s, bins) for window_s, bins in ((2, 80), (30, 80), (30, 128))),
        (np.zeros(1000, dtype=np.float32), 8, 80),
    ],
    ids=lambda value: str(getattr(value, "size", value)),
)
def test_features_equal_whisper(waveform, window_s, num_mel_bins):
    config = FeatureConfig(window_samples=window_s * SAMPLE_RATE_HZ, num_mel_bins=num_mel_bins)
    np.testing.assert_allclose(padded(waveform, config), whisper_features(waveform, config), atol=1e-4)


def test_only_frames_of_audio_are_kept():
    config = FeatureConfig(window_samples=WINDOW)
    features, _ = log_mel(noise(SAMPLE_RATE_HZ), config)
    assert features.shape == (80, 102)


def test_padding_restores_the_window_in_half_precision():
    config = FeatureConfig(window_samples=WINDOW)
    waveforms = [noise(num_samples) for num_samples in (SAMPLE_RATE_HZ, WINDOW)]
    batch = pad_features([segment_features(None, waveform, config) for waveform in waveforms], config)
    expected = np.stack([whisper_features(waveform, config) for waveform in waveforms])
    np.testing.assert_allclose(batch, expected, atol=2e-3)


@pytest.mark.parametrize(
    ("num_samples", "window", "error", "message"),
    [(0, WINDOW, TooShortError, "no samples"), (WINDOW + 1, WINDOW, ConfigError, "does not fit"),
     (1, WINDOW + 1, ConfigError, "multiple")],
)  # fmt: skip
def test_no_samples_too_many_and_a_window_of_no_whole_frames_are_refused(num_samples, window, error, message):
    with pytest.raises(error, match=message):
        log_mel(noise(num_samples), FeatureConfig(window_samples=window))
