"""Utterances in, rows of training batches out: a waveform with its text and its words' places.

Short utterances of one speaker may be joined into longer ones with silences between: the joins keep exact word times.
Audio is read as transcription reads it, and kept as long as a bounded store has room. Knows no model and no features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, ClassVar

import numpy as np
from cachetools import LRUCache, cachedmethod

from dgasr.audio import AudioConfig, open_audio
from dgasr.errors import ConfigError, RecordingError
from dgasr.training.augmentation import AugmentationConfig, augment, change_speed, non_speech
from dgasr.training.manifests import Utterance, num_samples

STORE_BYTES = 2 << 30
"""Waveforms kept at most, 9 hours of 16 kHz float32: a corpus of digits fits whole, and a large one leaves room for the
model on a small machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchConfig:
    """How training rows are put together.

    batch_size: rows in a batch.
    is_by_epoch: take every utterance once an epoch, those of like length together, in place of drawing rows.
    max_join: utterances of one speaker joined in a row, at most; 1 leaves utterances as they are.
    gap_s: (shortest, longest) silence between joined utterances, s; short ones are likelier.
    edge_s: longest silence before and after a row's speech, s.
    non_speech_probability: share of rows that hold no speech and have an empty text.
    word_share: middle part of a word whose frames are labelled with it, as a fraction of its length.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    batch_size: int = 12
    is_by_epoch: bool = False
    max_join: int = 1
    gap_s: tuple[float, float] = (0.0, 0.6)
    edge_s: float = 0.5
    non_speech_probability: float = 0.04
    word_share: float = 0.8

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.max_join < 1:
            raise ConfigError(f"batch_size and max_join must be at least 1, got {self.batch_size}, {self.max_join}.")
        if self.is_by_epoch and self.max_join > 1:
            raise ConfigError("utterances that are joined are drawn: an epoch of each once has no joins. Choose one.")


@dataclass(frozen=True, slots=True)
class Row:
    """One row's audio and what it says."""

    waveform: np.ndarray  # [samples]
    text: str
    words: tuple[tuple[str, int, int], ...] | None  # (word, start sample, end sample); None: nobody knows


class WaveformStore:
    """Waveforms of whole files, the least recently used ones dropped first.

    Args:
        max_bytes: of all waveforms kept; one longer than that is read and not kept.
    """

    def __init__(self, max_bytes: int = STORE_BYTES) -> None:
        self._kept: LRUCache[Any, np.ndarray] = LRUCache(max_bytes, getsizeof=attrgetter("nbytes"))

    @property
    def num_bytes(self) -> int:
        """Bytes of the waveforms that are kept."""
        return int(self._kept.currsize)

    @cachedmethod(lambda self: self._kept)
    def read(self, path: str, config: AudioConfig = AudioConfig()) -> np.ndarray:  # noqa: B008
        """Return a file's samples, mono, float32, 16 kHz.  [samples]

        Args:
            path: of a file in any container that can be transcribed.
            config: which of its tracks and channels.

        Raises:
            ConfigError: it cannot be read to its end.
        """
        try:
            with open(path, "rb") as file:
                return np.concatenate(list(open_audio(file, path, config).blocks()))
        except (OSError, RecordingError) as error:
            raise ConfigError(
                f"{path}: the manifest names it, but it cannot be read to its end ({error}). Leave it out of the "
                "manifest."
            ) from error


class Rows:
    """Draws rows.

    Args:
        utterances: what there is to draw from.
        window_samples: the longest row.
        config: how rows are put together.
        augmentation: how hard they become at most.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        window_samples: int,
        config: BatchConfig,
        augmentation: AugmentationConfig,
    ) -> None:
        self._window_samples, self._config, self._augmentation = window_samples, config, augmentation
        self._waveforms = WaveformStore()
        by_speaker: dict[str, list[Utterance]] = {}
        for index, utterance in enumerate(utterances):
            by_speaker.setdefault(utterance.speaker or f"utterance {index}", []).append(utterance)
        self._speakers = list(by_speaker.values())
        self._speaker_shares = np.array([len(group) for group in self._speakers]) / len(utterances)

    def draw(self, rng: np.random.Generator, strength: float, limit_s: float) -> Row:
        """Draw one row: speech of one speaker, or audio that holds none.

        Args:
            rng: source of all choices.
            strength: of the augmentation, in [0, 1].
            limit_s: longest row, s, unless a single utterance is longer.

        Raises:
            ConfigError: an utterance's audio cannot be read, or ends before its `offset`.
        """
        limit = min(self._window_samples, num_samples(limit_s))
        if rng.random() < self._config.non_speech_probability:
            return Row(non_speech(int(rng.integers(limit // 8, limit + 1)), rng), "", ())
        if self._config.max_join == 1:
            group = self._speakers[rng.choice(len(self._speakers), p=self._speaker_shares)]
            return self.row_of(group[rng.integers(len(group))], rng, strength)
        row = self._joined(rng, strength, limit)
        return Row(augment(row.waveform, self._augmentation, strength, rng), row.text, row.words)

    def row_of(self, utterance: Utterance, rng: np.random.Generator, strength: float) -> Row:
        """Make a row of one utterance alone; arguments and errors as in `draw`."""
        waveform, speed = self._at_speed(utterance, self._draw_speed(rng, strength))
        changed = augment(waveform, self._augmentation, strength, rng)
        return Row(changed, utterance.text, _moved(utterance, 0, speed))

    def _joined(self, rng: np.random.Generator, strength: float, limit: int) -> Row:
        group = self._speakers[rng.choice(len(self._speakers), p=self._speaker_shares)]
        pieces = [_silence(rng.uniform(0, self._config.edge_s) * rng.random(), rng)]
        words: list[tuple[str, int, int]] | None = []
        texts: list[str] = []
        position = pieces[0].size
        speed = self._draw_speed(rng, strength)
        gap_scale = rng.random()
        for _ in range(rng.integers(1, self._config.max_join + 1)):
            utterance = group[rng.integers(len(group))]
            waveform, own_speed = self._at_speed(utterance, speed)
            if position + waveform.size > limit and texts:
                break
            if not texts:  # a long first utterance leaves less room for silence before it
                pieces[0] = pieces[0][: self._window_samples - waveform.size]
                position = pieces[0].size
            pieces.append(waveform)
            texts.append(utterance.text)
            moved = _moved(utterance, position, own_speed)
            words = None if words is None or moved is None else [*words, *moved]
            low, high = self._config.gap_s
            gap = _silence(low + (high - low) * rng.random() ** 2 * gap_scale, rng)
            pieces.append(gap)
            end = position + waveform.size
            position = end + gap.size
        pieces.append(_silence(rng.uniform(0, self._config.edge_s) * rng.random(), rng))
        # Silence after the last word must not push a row into the next canvas bucket: short ones would go untrained.
        waveform = np.concatenate(pieces)[: max(limit, end)]
        return Row(waveform, " ".join(texts), None if words is None else tuple(words))

    def _draw_speed(self, rng: np.random.Generator, strength: float) -> float:
        return rng.uniform(1 - self._augmentation.speed * strength, 1 + self._augmentation.speed * strength)

    def _at_speed(self, utterance: Utterance, speed: float) -> tuple[np.ndarray, float]:
        """Change an utterance's speed, but never so much that it leaves the window; say what the change came to."""
        waveform = read_utterance(utterance, self._waveforms)
        changed = change_speed(waveform, max(speed, waveform.size / self._window_samples))
        return changed[: self._window_samples], waveform.size / changed.size


def _moved(utterance: Utterance, position: int, speed: float) -> tuple[tuple[str, int, int], ...] | None:
    if utterance.words is None:
        return None
    return tuple(
        (word.word, position + round(word.start_sample / speed), position + round(word.end_sample / speed))
        for word in utterance.words
    )


def _silence(duration_s: float, rng: np.random.Generator) -> np.ndarray:
    return (rng.standard_normal(num_samples(duration_s)) * 1e-5).astype(np.float32)


def read_utterance(utterance: Utterance, waveforms: WaveformStore) -> np.ndarray:
    """Read an utterance's samples, float32 mono 16 kHz.  [samples]

    Raises:
        ConfigError: its audio cannot be read, or ends before its `offset`.
    """
    start = num_samples(utterance.offset)
    samples = waveforms.read(utterance.audio_filepath, utterance.audio(AudioConfig()))
    samples = samples[start : start + num_samples(utterance.duration)]
    if samples.size == 0:
        raise ConfigError(f"{utterance.audio_filepath}: ends before {utterance.offset} s. Correct the row's `offset`.")
    return samples
