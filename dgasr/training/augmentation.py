"""Making training audio harder: speed, level, colour, room, noise, and audio that holds no speech at all.

Waveforms in, waveforms out, all randomness from the generator that is passed in. Knows no text and no model.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.fft
import soxr

from dgasr.errors import ConfigError
from dgasr.records import SAMPLE_RATE_HZ


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentationConfig:
    """How hard training audio may become at full strength; a phase scales it by a strength in [0, 1].

    speed: largest change of speed, pitch and formants, as a fraction (0.15: 0.85 … 1.15).
    gain_db: largest change of level either way, dB.
    colour_probability: share of rows that get a random frequency response (tilt, and often a low-pass).
    reverb_probability: share of rows that get a synthetic room.
    noise_probability: share of rows that get noise at `snr_db` (low, high), dB.
    mask_probability: share of rows whose features get a time and a mel-band mask.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    speed: float = 0.15
    gain_db: float = 12.0
    colour_probability: float = 0.5
    reverb_probability: float = 0.25
    noise_probability: float = 0.5
    snr_db: tuple[float, float] = (6.0, 40.0)
    mask_probability: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.speed < 0.5:
            raise ConfigError(f"augmentation.speed must lie in [0, 0.5), got {self.speed}.")


def change_speed(waveform: np.ndarray, factor: float) -> np.ndarray:
    """Play faster (factor > 1) or slower; pitch and formants move along.  [samples] → [samples / factor]"""
    if abs(factor - 1.0) < 0.01:
        return waveform
    return soxr.resample(waveform, SAMPLE_RATE_HZ * factor, SAMPLE_RATE_HZ, quality="LQ").astype(np.float32)


def augment(waveform: np.ndarray, config: AugmentationConfig, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Apply colour, room, level and noise to one utterance.

    Args:
        waveform: mono samples.  [samples]
        config: what may happen.
        strength: scales probabilities and extents, in [0, 1].
        rng: source of all choices.

    Returns:
        The changed waveform, float32.  [samples]
    """
    spectrum_gain = _colour(rng, strength) if rng.random() < config.colour_probability * strength else None
    room = _room(rng, strength) if rng.random() < config.reverb_probability * strength else None
    if spectrum_gain is not None or room is not None:
        waveform = _filter(waveform, spectrum_gain, room)
    if rng.random() < config.noise_probability * strength:
        low, high = config.snr_db
        snr_db = rng.uniform(high - (high - low) * strength, high)
        waveform = waveform + _noise_at(waveform, snr_db, rng)
    gain_db = rng.uniform(-config.gain_db, config.gain_db) * strength
    return np.clip(waveform * 10 ** (gain_db / 20), -1.0, 1.0).astype(np.float32)


def non_speech(num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Make audio whose transcript is empty: silence, coloured noise, hum, or a few tones as in music."""
    kind = rng.integers(4)
    level = 10 ** (rng.uniform(-60, -6) / 20)
    if kind == 0:
        return (rng.standard_normal(num_samples) * 10 ** (rng.uniform(-110, -60) / 20)).astype(np.float32)
    if kind == 1:
        return (coloured_noise(num_samples, rng.uniform(0, 2), rng) * level).astype(np.float32)
    time_s = np.arange(num_samples) / SAMPLE_RATE_HZ
    if kind == 2:
        base_hz = rng.choice([50.0, 60.0, rng.uniform(80, 400)])
        tones = sum(np.sin(2 * np.pi * base_hz * k * time_s) / k for k in range(1, rng.integers(2, 8)))
    else:
        tones = _melody(num_samples, time_s, rng)
    return (tones / (np.abs(tones).max() + 1e-9) * level + rng.standard_normal(num_samples) * level * 0.01).astype(
        np.float32
    )


def coloured_noise(num_samples: int, exponent: float, rng: np.random.Generator) -> np.ndarray:
    """Make noise of unit power whose power falls as 1 / f^exponent (0 white, 1 pink, 2 brown).  [samples]"""
    size = scipy.fft.next_fast_len(num_samples, real=True)
    spectrum = rng.standard_normal(size // 2 + 1) + 1j * rng.standard_normal(size // 2 + 1)
    frequency = np.maximum(np.arange(size // 2 + 1), size * 50 / SAMPLE_RATE_HZ)
    noise = scipy.fft.irfft(spectrum * frequency ** (-exponent / 2), size)[:num_samples]
    return noise / (np.sqrt(np.mean(noise**2)) + 1e-12)


def mask_features(log_mel: np.ndarray, fill: float, rng: np.random.Generator) -> None:
    """Blank up to 120 ms and up to 8 mels in place (SpecAugment, Park et al. 2019).  [mels, frames]"""
    num_mels, num_frames = log_mel.shape
    start = rng.integers(0, max(1, num_frames - 12))
    log_mel[:, start : start + rng.integers(1, 13)] = fill
    band = rng.integers(0, num_mels - 8)
    log_mel[band : band + rng.integers(1, 9)] = fill


def _melody(num_samples: int, time_s: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    tones = np.zeros(num_samples)
    note_samples = int(rng.uniform(0.12, 0.7) * SAMPLE_RATE_HZ)
    for start in range(0, num_samples, note_samples):
        part = slice(start, start + note_samples)
        decay = np.exp(-np.arange(len(tones[part])) / SAMPLE_RATE_HZ * rng.uniform(1, 8))
        for _ in range(rng.integers(1, 4)):
            pitch_hz = 110 * 2 ** (rng.integers(0, 37) / 12)
            for harmonic in range(1, rng.integers(2, 6)):
                tones[part] += decay * np.sin(2 * np.pi * pitch_hz * harmonic * time_s[part]) / harmonic
    return tones


def _colour(rng: np.random.Generator, strength: float) -> tuple[float, float]:
    """Choose a tilt (dB per octave above 500 Hz) and a low-pass corner (Hz)."""
    corner_hz = rng.uniform(2800, 4000) if rng.random() < 0.6 else SAMPLE_RATE_HZ
    return rng.uniform(-4, 4) * strength, corner_hz


def _room(rng: np.random.Generator, strength: float) -> np.ndarray:
    """Make an impulse response: the direct sound and an exponentially decaying tail.  [samples]"""
    decay_s = rng.uniform(0.05, 0.4) * strength + 0.02
    tail = rng.standard_normal(int(decay_s * SAMPLE_RATE_HZ)) * np.exp(
        -6.9 * np.arange(int(decay_s * SAMPLE_RATE_HZ)) / (decay_s * SAMPLE_RATE_HZ)
    )
    tail *= rng.uniform(0.1, 0.7) * strength / (np.sqrt(np.sum(tail**2)) + 1e-9)
    tail[0] = 1.0
    return tail


def _filter(waveform: np.ndarray, colour: tuple[float, float] | None, room: np.ndarray | None) -> np.ndarray:
    size = scipy.fft.next_fast_len(waveform.size + (0 if room is None else room.size), real=True)
    spectrum = scipy.fft.rfft(waveform, size)
    if room is not None:
        spectrum *= scipy.fft.rfft(room, size)
    if colour is not None:
        tilt_db, corner_hz = colour
        frequency_hz = np.maximum(scipy.fft.rfftfreq(size, 1 / SAMPLE_RATE_HZ), 60.0)
        spectrum *= 10 ** (tilt_db * np.log2(frequency_hz / 500) / 20) / np.sqrt(1 + (frequency_hz / corner_hz) ** 16)
    return scipy.fft.irfft(spectrum, size)[: waveform.size]


def _noise_at(waveform: np.ndarray, snr_db: float, rng: np.random.Generator) -> np.ndarray:
    speech = waveform[np.abs(waveform) > 0.02 * (np.abs(waveform).max() + 1e-9)]
    power = float(np.mean(speech**2)) if speech.size else 1e-6
    noise = coloured_noise(waveform.size, rng.uniform(0, 1.5), rng)
    return noise * np.sqrt(power / 10 ** (snr_db / 10))
