"""Connected digits: recordings of one speaker joined into utterances with exact word times. Knows no model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import soundfile
import soxr

from dgasr.errors import ConfigError
from dgasr.records import SAMPLE_RATE_HZ, Word, seconds
from dgasr.training.corpora.digits import VALIDATION_INDICES, list_digits
from dgasr.training.manifests import Utterance, num_samples, write_manifest

Take = tuple[str, np.ndarray]
"""A spoken word with its 16 kHz waveform.  [samples]"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectedDigitsConfig:
    """How single digits are joined into utterances; every range is drawn from evenly, ends included."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    num_utterances: int = 300
    """How many utterances to make; speakers take turns."""
    min_digits: int = 1
    """Fewest digits in an utterance."""
    max_digits: int = 10
    """Most digits in an utterance."""
    min_gap_s: float = 0.05
    """Shortest pause between two digits, s."""
    max_gap_s: float = 0.3
    """Longest pause between two digits, s."""
    min_edge_s: float = 0.1
    """Shortest silence before the first and after the last digit, s."""
    max_edge_s: float = 0.5
    """Longest silence before the first and after the last digit, s."""
    min_noise_db: float = -80.0
    """Quietest room noise under the whole utterance, dB of full scale."""
    max_noise_db: float = -66.0
    """Loudest room noise under the whole utterance, dB of full scale."""
    seed: int = 1
    """Equal seeds give equal files."""

    def __post_init__(self) -> None:
        """Refuse ranges that cannot be drawn from."""
        if self.num_utterances < 1 or self.min_digits < 1:
            raise ConfigError("connected digits: num_utterances and min_digits must be 1 or more.")
        for name in ("digits", "gap_s", "edge_s", "noise_db"):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if low > high or (low < 0 and name != "noise_db"):
                raise ConfigError(f"connected digits: min_{name} {low}, max_{name} {high}: give 0 ≤ min ≤ max.")


def connected_digits(
    fsdd_dir: Path,
    out_dir: Path,
    config: ConnectedDigitsConfig,
    speakers: Sequence[str] | None = None,
    indices: Sequence[int] = VALIDATION_INDICES,
) -> list[Utterance]:
    """Write connected digits of the Free Spoken Digit Dataset.

    Args:
        fsdd_dir: the data set's folder, or its `recordings` folder.
        out_dir: where `manifest.jsonl` and one 16 kHz FLAC per utterance go; files of the same name are replaced.
        config: how many utterances, how long, how far apart the digits.
        speakers: whom to take; `None` takes everyone.
        indices: which takes of each digit to use.

    Returns:
        What was written.

    Raises:
        ConfigError: no such folder, nobody of that name in it, or nothing with these indices.
    """
    takes: dict[str, list[Take]] = {}
    for digit in list_digits(fsdd_dir, speakers, indices):
        assert digit.speaker is not None
        takes.setdefault(digit.speaker, []).append((digit.text, _read_16khz(digit.audio_filepath)))
    folder = Path(out_dir).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(config.seed)
    utterances = []
    for n in range(config.num_utterances):
        speaker = sorted(takes)[n % len(takes)]
        waveform, words = _join(takes[speaker], config, generator)
        path = folder / f"{n:04d}_{speaker}.flac"
        soundfile.write(path, waveform, SAMPLE_RATE_HZ, subtype="PCM_16")
        utterances.append(_utterance(path, len(waveform), words, speaker))
    write_manifest(folder / "manifest.jsonl", utterances)
    return utterances


def _join(
    takes: Sequence[Take], config: ConnectedDigitsConfig, generator: np.random.Generator
) -> tuple[np.ndarray, tuple[Word, ...]]:
    """Draw digits and pauses and lay them out in a row, over noise so that no pause is digital silence."""
    count = int(generator.integers(config.min_digits, config.max_digits, endpoint=True))
    drawn = [takes[i] for i in generator.integers(len(takes), size=count)]
    lead_s, tail_s = generator.uniform(config.min_edge_s, config.max_edge_s, size=2)
    pauses_s = [lead_s, *generator.uniform(config.min_gap_s, config.max_gap_s, size=count - 1)]
    words, position = [], 0
    for (digit, recording), pause_s in zip(drawn, pauses_s, strict=True):
        start = position + num_samples(pause_s)
        position = start + len(recording)
        words.append(Word(word=digit, start_sample=start, end_sample=position, confidence=1.0))
    level = 10 ** (generator.uniform(config.min_noise_db, config.max_noise_db) / 20)
    waveform = level * generator.standard_normal(position + num_samples(tail_s))
    for word, (_, recording) in zip(words, drawn, strict=True):
        waveform[word.start_sample : word.end_sample] += recording
    return np.clip(waveform, -1.0, 1.0), tuple(words)


def _utterance(path: Path, length: int, words: tuple[Word, ...], speaker: str) -> Utterance:
    return Utterance(
        audio_filepath=str(path),
        duration=seconds(length),
        text=" ".join(word.word for word in words),
        language="en",
        words=words,
        speaker=speaker,
    )


def _read_16khz(path: str) -> np.ndarray:
    waveform, rate_hz = soundfile.read(path, dtype="float32")
    return waveform if rate_hz == SAMPLE_RATE_HZ else soxr.resample(waveform, rate_hz, SAMPLE_RATE_HZ)
