"""Making training audio harder: speed, level, colour, room, noise, and audio that holds no speech at all.

Waveforms in, waveforms out, all randomness from the generator that is passed in. Knows no text and no model.
"""

import numpy as np
import scipy.fft
import soxr

from dgasr.records import SAMPLE_RATE_HZ, settings

MEL_MASKS, MEL_MASK = 2, 8
"""Bands that a row may lose, and the widest one in mels."""

TELEPHONE_RATE_HZ = 8_000
"""Sampling rate of telephones, and of the recordings of digits."""

FRAMES_PER_MASK, FRAME_MASK = 80, 10
"""Mel frames for each stretch that a row may lose, and the longest stretch in frames."""


@settings
class AugmentationConfig:
    """How hard training audio may become at full strength; a phase scales it by a strength in [0, 1].

    speed: largest change of speed, pitch and formants, as a fraction (0.15: 0.85 … 1.15).
    gain_db: largest change of level either way, dB.
    colour_probability: share of rows that get a random frequency response (tilt, and often a low-pass).
    telephone_probability: share of rows cut at 4 kHz as telephones cut them; the same at every strength.
    reverb_probability: share of rows that get a synthetic room.
    noise_probability: share of rows that get noise at `snr_db` (low, high), dB.
    mask_probability: chance of each mask that a row's features may get.
    """

    speed: float = 0.15
    gain_db: float = 12.0
    colour_probability: float = 0.5
    telephone_probability: float = 0.0
    reverb_probability: float = 0.25
    noise_probability: float = 0.5
    snr_db: tuple[float, float] = (6.0, 40.0)
    mask_probability: float = 1.0


def change_speed(waveform: np.ndarray, factor: float) -> np.ndarray:
    """Play faster (factor > 1) or slower; pitch and formants move along.  [samples] → [samples / factor]"""
    if abs(factor - 1.0) < 0.01:
        return waveform
    return soxr.resample(waveform, SAMPLE_RATE_HZ * factor, SAMPLE_RATE_HZ, quality="LQ").astype(np.float32)


def through_telephone(waveform: np.ndarray) -> np.ndarray:
    """Keep what a sampling rate of 8 kHz carries.  [samples] → [samples]"""
    carried = soxr.resample(waveform, SAMPLE_RATE_HZ, TELEPHONE_RATE_HZ)
    received = soxr.resample(carried, TELEPHONE_RATE_HZ, SAMPLE_RATE_HZ)[: waveform.size]
    return np.pad(received, (0, waveform.size - received.size)).astype(np.float32)


def augment(waveform: np.ndarray, config: AugmentationConfig, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Apply a telephone's band, colour, room, level and noise to one utterance; mono float32 [samples].

    `strength`, in [0, 1], scales probabilities and extents; `rng` makes all choices.
    """
    if config.telephone_probability and rng.random() < config.telephone_probability:
        waveform = through_telephone(waveform)
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
    """Make audio whose transcript is empty: silence, noise, noise in a rhythm, hum, or notes as in music."""
    kind = rng.choice(5, p=(0.15, 0.2, 0.15, 0.1, 0.4))
    level = 10 ** (rng.uniform(-60, -6) / 20)
    if kind == 0:
        return (rng.standard_normal(num_samples) * 10 ** (rng.uniform(-110, -60) / 20)).astype(np.float32)
    if kind in (1, 2):
        noise = coloured_noise(num_samples, rng.uniform(0, 2), rng)
        return (noise * (_rhythm(num_samples, rng) if kind == 2 else 1.0) * level).astype(np.float32)
    tones = _hum(num_samples, rng) if kind == 3 else _melody(num_samples, rng)
    floor = rng.standard_normal(num_samples) * 10 ** rng.uniform(-4, -1.5)
    return ((tones / (np.abs(tones).max() + 1e-9) + floor) * level).astype(np.float32)


def coloured_noise(num_samples: int, exponent: float, rng: np.random.Generator) -> np.ndarray:
    """Make noise of unit power whose power falls as 1 / f^exponent (0 white, 1 pink, 2 brown).  [samples]"""
    size = scipy.fft.next_fast_len(num_samples, real=True)
    spectrum = rng.standard_normal(size // 2 + 1) + 1j * rng.standard_normal(size // 2 + 1)
    frequency = np.maximum(np.arange(size // 2 + 1), size * 50 / SAMPLE_RATE_HZ)
    noise = scipy.fft.irfft(spectrum * frequency ** (-exponent / 2), size)[:num_samples]
    return noise / (np.sqrt(np.mean(noise**2)) + 1e-12)


def mask_features(log_mel: np.ndarray, fill: float, probability: float, rng: np.random.Generator) -> None:
    """Blank, each with a probability, two bands of up to 8 mels, and in every 0.8 s up to 100 ms, in place.

    Of features, [mels, frames], with the value `fill`; `rng` makes all choices.

    Source:
        SpecAugment (Park et al. 2019), with masks short enough that no word of 0.3 s is lost.
    """
    num_mels, num_frames = log_mel.shape
    for _ in range(MEL_MASKS):
        if rng.random() < probability:
            band = rng.integers(0, num_mels - MEL_MASK)
            log_mel[band : band + rng.integers(1, MEL_MASK + 1)] = fill
    for _ in range(max(1, num_frames // FRAMES_PER_MASK)):
        if rng.random() < probability:
            start = rng.integers(0, max(1, num_frames - FRAME_MASK))
            log_mel[:, start : start + rng.integers(1, FRAME_MASK + 1)] = fill


def _hum(num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """One steady tone with harmonics, as of a transformer or a motor.  [samples]"""
    time_s = np.arange(num_samples) / SAMPLE_RATE_HZ
    base_hz = rng.choice([50.0, 60.0, rng.uniform(80, 1000)])
    return np.sum([np.sin(2 * np.pi * base_hz * k * time_s) / k for k in range(1, rng.integers(2, 8))], axis=0)


def _melody(num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Notes of one instrument: chords, rests, any attack and decay, vibrato.  [samples]"""
    tones = np.zeros(num_samples)
    note_samples = int(rng.uniform(0.1, 0.9) * SAMPLE_RATE_HZ)
    num_voices, num_harmonics = rng.integers(1, 4), rng.integers(1, 9)
    slope, vibrato = rng.uniform(0.3, 2.5), rng.uniform(0, 0.02) * (rng.random() < 0.5)
    rest, lowest_hz = rng.uniform(0, 0.4), rng.choice([65.0, 110.0, 220.0])
    envelope = _envelope(note_samples, rng)
    for start in range(0, num_samples, note_samples):
        if rng.random() < rest:
            continue
        part = tones[start : start + note_samples]
        time_s = np.arange(part.size) / SAMPLE_RATE_HZ
        for pitch_hz in lowest_hz * 2 ** (rng.integers(0, 25, num_voices) / 12):
            phase = 2 * np.pi * pitch_hz * (time_s + vibrato / 30 * np.sin(2 * np.pi * 5.5 * time_s))
            for harmonic in range(1, num_harmonics + 1):
                part += envelope[: part.size] * np.sin(harmonic * phase) / harmonic**slope
    return tones


def _envelope(num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Rise and fall of one note: struck, or swelling and fading like bowed strings.  [samples]"""
    position = np.arange(num_samples) / num_samples
    if rng.random() < 0.5:
        return np.exp(-position * rng.uniform(0, 8)) * np.minimum(1, position / rng.uniform(0.002, 0.2))
    return np.sin(np.pi * position) ** rng.uniform(0.3, 3)


def _rhythm(num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Gains that repeat a short envelope, as of drums, steps or a machine.  [samples]"""
    beat = _envelope(int(rng.uniform(0.08, 0.8) * SAMPLE_RATE_HZ), rng)
    return np.tile(beat, num_samples // beat.size + 1)[:num_samples]


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
