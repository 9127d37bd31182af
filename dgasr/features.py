"""Log-mel features: a segment's waveform in, what the encoder reads out.

Equals transformers' `WhisperFeatureExtractor` on the zero-padded window, but computes only the frames that hold audio:
the frames of the padding all have one value, which travels beside them. Knows no model and no file.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import scipy.fft

from dgasr.errors import ConfigError, TooShortError
from dgasr.records import SAMPLE_RATE_HZ, Segment, SegmentFeatures, settings

MEL_FLOOR = 1e-10
"""Power below which a mel band counts as silent."""

DYNAMIC_RANGE = 8.0
"""Decades below a window's loudest band at which its features are cut off."""

FRAMES_PER_BLOCK = 256
"""Frames transformed at once: their spectra stay in the processor's cache."""

LINEAR_UP_TO_HZ, HZ_PER_MEL, LOG_STEP = 1000.0, 200.0 / 3, np.log(6.4) / 27
"""The mel scale of Slaney's Auditory Toolbox: linear at first, then 27 steps for each factor of 6.4."""


@settings
class FeatureConfig:
    """What the encoder expects; every value comes from the model's own configuration.

    Attributes:
        window_samples: length of the encoder's window in samples, a multiple of `hop_samples`.
        num_mel_bins: mel bands in a frame.
        hop_samples: samples from one frame to the next.
        fft_samples: samples that one frame sees, even.
    """

    window_samples: int
    num_mel_bins: int = 80
    hop_samples: int = 160
    fft_samples: int = 400

    def __post_init__(self) -> None:
        if self.window_samples < self.fft_samples or self.window_samples % self.hop_samples:
            raise ConfigError(
                f"FeatureConfig: window_samples={self.window_samples} must be a multiple of hop_samples="
                f"{self.hop_samples} and at least fft_samples={self.fft_samples}. Take it from the model's config."
            )

    @property
    def window_frames(self) -> int:
        """Frames in a full window."""
        return self.window_samples // self.hop_samples

    def audio_frames(self, num_samples: int) -> int:
        """Count the frames of a window that see at least one of its first `num_samples` samples."""
        # A frame reaches half its length back, and the first and last tap of the Hann window are zero there.
        return min(self.window_frames, (num_samples + self.fft_samples // 2 - 2) // self.hop_samples + 1)


def log_mel(waveform: np.ndarray, config: FeatureConfig) -> tuple[np.ndarray, float]:
    """Turn a waveform into log-mel features, as if it were padded with silence to a whole window.

    Of mono samples in [-1, 1] at 16 kHz, [samples], at most one window: the features of the frames that hold audio,
    float32 [mels, frames], and the value of every feature after them. TooShortError without samples, ConfigError with
    more than one window holds.

    Source:
        Radford et al. 2022, section 2.2; equals transformers' WhisperFeatureExtractor within 1e-4.
    """
    if waveform.size == 0:
        raise TooShortError("log-mel features of no samples at all: drop empty segments before computing features.")
    if waveform.size > config.window_samples:
        raise ConfigError(
            f"A segment of {waveform.size} samples does not fit the encoder's window of {config.window_samples}: "
            "segment the recording with the window length of this model."
        )
    power = _mel_power(_reflected(waveform, config), config)  # [frames, mels]
    features = np.log10(np.maximum(power, MEL_FLOOR, out=power), out=power)
    floor = max(np.log10(MEL_FLOOR), float(features.max()) - DYNAMIC_RANGE)
    np.maximum(features, floor, out=features)
    features += 4.0
    features *= 0.25
    return np.ascontiguousarray(features.T), (floor + 4.0) / 4.0


def segment_features(segment: Segment, waveform: np.ndarray, config: FeatureConfig) -> SegmentFeatures:
    """Compute what the encoder needs of a segment's samples [samples], in half precision; errors as `log_mel`'s."""
    features, pad_value = log_mel(waveform, config)
    return SegmentFeatures(segment=segment, log_mel=features.astype(np.float16), pad_value=pad_value)


def pad_features(features: Sequence[SegmentFeatures], config: FeatureConfig) -> np.ndarray:
    """Stack segments of one batch as `whole_windows` does; [batch, mels, window frames], float32."""
    return whole_windows([(item.log_mel, item.pad_value) for item in features], config)


def whole_windows(features: Sequence[tuple[np.ndarray, float]], config: FeatureConfig) -> np.ndarray:
    """Continue what `log_mel` computes to the ends of windows.

    Of the features of each window's audio, [mels, frames], and the value of every one after them: float32 [batch, mels,
    window frames].
    """
    windows = np.empty((len(features), config.num_mel_bins, config.window_frames), dtype=np.float32)
    for window, (audio, pad_value) in zip(windows, features, strict=True):
        num_frames = audio.shape[1]
        window[:, :num_frames] = audio
        window[:, num_frames:] = pad_value
    return windows


def _reflected(waveform: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """Extend the samples to what the frames of audio see: mirrored at the window's edges, silent after the audio."""
    half = config.fft_samples // 2
    num_samples = (config.audio_frames(waveform.size) - 1) * config.hop_samples + config.fft_samples
    extended = np.zeros(max(num_samples, config.fft_samples + 1), dtype=np.float32)
    audio = waveform[: extended.size - half]
    extended[half : half + audio.size] = audio
    extended[:half] = extended[half + 1 : 2 * half + 1][::-1]
    beyond = extended.size - half - config.window_samples
    if beyond > 0:
        end = half + config.window_samples
        extended[end:] = extended[end - 1 - beyond : end - 1][::-1]
    return extended[:num_samples]


def _mel_power(extended: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """Sum the power spectrum of every frame into mel bands, [frames, mels]."""
    hann, filters = _hann(config.fft_samples), _mel_filters(config.num_mel_bins, config.fft_samples)
    frames = np.lib.stride_tricks.sliding_window_view(extended, config.fft_samples)[:: config.hop_samples]
    power = np.empty((len(frames), config.num_mel_bins), dtype=np.float32)
    for start in range(0, len(frames), FRAMES_PER_BLOCK):
        spectrum = scipy.fft.rfft(frames[start : start + FRAMES_PER_BLOCK] * hann, overwrite_x=True)
        energy = np.square(spectrum.real)
        energy += np.square(spectrum.imag)
        np.matmul(energy, filters, out=power[start : start + FRAMES_PER_BLOCK])
    return power


@lru_cache(maxsize=8)
def _hann(num_samples: int) -> np.ndarray:
    """Make the periodic Hann window, [samples]."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(num_samples) / num_samples)).astype(np.float32)


@lru_cache(maxsize=8)
def _mel_filters(num_mel_bins: int, fft_samples: int) -> np.ndarray:
    """Make triangular filters of equal area, evenly spaced in mel from 0 Hz to half the sample rate, [bins, mels]."""
    top_mel = LINEAR_UP_TO_HZ / HZ_PER_MEL + np.log(SAMPLE_RATE_HZ / 2 / LINEAR_UP_TO_HZ) / LOG_STEP
    edges_hz = _mel_to_hz(np.linspace(0.0, top_mel, num_mel_bins + 2))
    bins_hz = np.fft.rfftfreq(fft_samples, 1 / SAMPLE_RATE_HZ)[:, None]
    left, centre, right = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]
    rising, falling = (bins_hz - left) / (centre - left), (right - bins_hz) / (right - centre)
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return (triangles * (2.0 / (right - left))).astype(np.float32)


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    """Turn mel into Hz on Slaney's scale."""
    linear_mel = LINEAR_UP_TO_HZ / HZ_PER_MEL
    above = LINEAR_UP_TO_HZ * np.exp(LOG_STEP * np.maximum(mel - linear_mel, 0.0))
    return np.where(mel < linear_mel, mel * HZ_PER_MEL, above)
