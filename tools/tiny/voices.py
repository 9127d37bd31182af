"""Synthetic voices: single words spoken by espeak-ng and flite, trimmed to speech. Knows no model."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import soundfile
import soxr

from dgasr.errors import ConfigError
from dgasr.manifests import Utterance, write_manifest
from dgasr.records import SAMPLE_RATE_HZ, Word, seconds

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

PAUSE_SAMPLES = SAMPLE_RATE_HZ // 10
"""Digital silence between two words of a voice's file."""
FRAME_SAMPLES = SAMPLE_RATE_HZ // 100
"""Frame over which loudness is measured when a word is trimmed."""
FLITE_NORMAL_WPM = 170
"""Speaking rate that counts as flite's normal speed, words per minute."""

Speak = Callable[[str, float, float, Path], list[str]]
"""(word, words per minute, pitch in [0, 1], WAV file to write) -> the command line that does it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntheticVoicesConfig:
    """Which voices say which words; rate and pitch are drawn evenly for every take."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    words: tuple[str, ...] = DIGITS
    """What is said, one word a take."""
    espeak_accents: tuple[str, ...] = (
        "en-us",
        "en-us-nyc",
        "en-gb",
        "en-gb-scotland",
        "en-gb-x-rp",
        "en-gb-x-gbclan",
        "en-gb-x-gbcwmd",
        "en-029",
    )
    """Voices of espeak-ng; each speaks with every variant."""
    espeak_variants: tuple[str, ...] = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5")
    """Variants of espeak-ng: the speaker's sex, size and timbre."""
    flite_voices: tuple[str, ...] = ("awb", "kal16", "rms", "slt")
    """Voices of flite."""
    takes: int = 2
    """How often an espeak-ng voice says each word."""
    flite_takes: int = 10
    """How often a flite voice, of which there are few, says each word."""
    min_rate_wpm: float = 120.0
    """Slowest speech, words per minute."""
    max_rate_wpm: float = 220.0
    """Fastest speech, words per minute."""
    min_pitch: float = 0.2
    """Lowest pitch as a share of the range the voice has."""
    max_pitch: float = 0.8
    """Highest pitch as a share of the range the voice has."""
    trim_db: float = 40.0
    """Edges this far below the loudest frame count as silence, dB."""
    seed: int = 1
    """Equal seeds give equal rates and pitches."""

    def __post_init__(self) -> None:
        """Refuse a configuration that says nothing."""
        if not self.words or not ((self.espeak_accents and self.espeak_variants) or self.flite_voices):
            raise ConfigError("synthetic voices: give at least one word and one voice.")
        if not (0 < self.min_rate_wpm <= self.max_rate_wpm and 0 <= self.min_pitch <= self.max_pitch <= 1):
            raise ConfigError(
                "synthetic voices: give 0 < min_rate_wpm ≤ max_rate_wpm and 0 ≤ min_pitch ≤ max_pitch ≤ 1."
            )


def synthetic_voices(out_dir: Path, config: SyntheticVoicesConfig) -> list[Utterance]:
    """Let every voice say every word.

    Args:
        out_dir: where `manifest.jsonl` and one 16 kHz FLAC per voice go; utterances point into the files by `offset`.
        config: voices, words, rates and pitches.

    Returns:
        What was written, one word an utterance, `speaker` naming engine and voice.

    Raises:
        ConfigError: espeak-ng or flite is not installed, or has no such voice.
    """
    folder = Path(out_dir).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(config.seed)
    utterances: list[Utterance] = []
    for voice, speak, takes in _voices(config):
        spoken = [
            (word, _say(speak, word, rate_wpm, pitch, config.trim_db))
            for word in config.words
            for rate_wpm, pitch in zip(
                generator.uniform(config.min_rate_wpm, config.max_rate_wpm, takes),
                generator.uniform(config.min_pitch, config.max_pitch, takes),
                strict=True,
            )
        ]
        utterances += _pack(folder / f"{voice}.flac", voice, spoken)
    write_manifest(folder / "manifest.jsonl", utterances)
    return utterances


def _voices(config: SyntheticVoicesConfig) -> Iterator[tuple[str, Speak, int]]:
    if config.espeak_accents:
        _require("espeak-ng")
    if config.flite_voices:
        _require("flite")
    for accent in config.espeak_accents:
        for variant in config.espeak_variants:
            yield f"espeak-ng_{accent}+{variant}", _espeak(f"{accent}+{variant}"), config.takes
    for voice in config.flite_voices:
        yield f"flite_{voice}", _flite(voice), config.flite_takes


def _require(program: str) -> None:
    if shutil.which(program) is None:
        raise ConfigError(f"{program} is not installed. On Debian or Ubuntu: apt-get install {program}.")


def _espeak(voice: str) -> Speak:
    def speak(word: str, rate_wpm: float, pitch: float, wav: Path) -> list[str]:
        return ["espeak-ng", "-v", voice, "-s", f"{rate_wpm:.0f}", "-p", f"{99 * pitch:.0f}", "-w", str(wav), word]

    return speak


def _flite(voice: str) -> Speak:
    def speak(word: str, rate_wpm: float, pitch: float, wav: Path) -> list[str]:
        stretch, mean_hz = FLITE_NORMAL_WPM / rate_wpm, 80 + 120 * pitch
        settings = ["--setf", f"duration_stretch={stretch:.3f}", "--setf", f"int_f0_target_mean={mean_hz:.0f}"]
        return ["flite", "-voice", voice, *settings, "-t", word, "-o", str(wav)]

    return speak


def _say(speak: Speak, word: str, rate_wpm: float, pitch: float, trim_db: float) -> np.ndarray:
    """Speak one word, at 16 kHz with its peak at half of full scale: [samples]."""
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "word.wav"
        command = speak(word, rate_wpm, pitch, wav)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not wav.exists():
            raise ConfigError(
                f"{' '.join(command)}: {done.stderr.strip() or 'no audio written'}. Choose another voice."
            )
        waveform, rate_hz = soundfile.read(wav, dtype="float32")
    speech = trim_silence(soxr.resample(waveform, rate_hz, SAMPLE_RATE_HZ), trim_db)
    return 0.5 * speech / max(float(np.abs(speech).max(initial=0.0)), 1e-6)


def trim_silence(waveform: np.ndarray, trim_db: float) -> np.ndarray:
    """Cut away the edges whose 10 ms frames lie `trim_db` below the loudest one: [samples] to fewer [samples]."""
    frames = waveform[: len(waveform) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    power = np.square(frames).mean(axis=1)  # [frames]
    loud = np.flatnonzero(power > power.max(initial=0.0) * 10 ** (-trim_db / 10))
    return waveform[loud[0] * FRAME_SAMPLES : (loud[-1] + 1) * FRAME_SAMPLES] if len(loud) else waveform


def _pack(path: Path, voice: str, spoken: list[tuple[str, np.ndarray]]) -> list[Utterance]:
    """Write a voice's words into one file with pauses between them."""
    pause = np.zeros(PAUSE_SAMPLES, dtype=np.float32)
    soundfile.write(path, np.concatenate([part for _, word in spoken for part in (word, pause)]), SAMPLE_RATE_HZ)
    utterances, position = [], 0
    for text, waveform in spoken:
        utterances.append(
            Utterance(
                audio_filepath=str(path),
                offset=seconds(position),
                duration=seconds(len(waveform)),
                text=text,
                language="en",
                words=(Word(word=text, start_sample=0, end_sample=len(waveform), confidence=1.0),),
                speaker=voice,
            )
        )
        position += len(waveform) + PAUSE_SAMPLES
    return utterances
