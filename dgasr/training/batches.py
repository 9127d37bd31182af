"""Utterances in, training batches out. Batch `step` is a pure function of (seed, step), which makes resuming exact.

Audio is read as transcription reads it, and kept as long as a bounded store has room. Knows features and ids, no model
and no loss.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from cachetools import LRUCache, cachedmethod
from torch import Tensor
from torch.utils.data import Dataset

from dgasr.audio import AudioConfig, open_audio
from dgasr.errors import ConfigError, RecordingError
from dgasr.features import FeatureConfig, log_mel, whole_windows
from dgasr.manifests import Utterance, num_samples
from dgasr.model.presets import AsrConfig
from dgasr.prompt import Tokenizer, canvas_ids
from dgasr.records import SAMPLE_RATE_HZ, seconds, settings
from dgasr.training.augmentation import AugmentationConfig, augment, change_speed, mask_features, non_speech

IGNORED = -100
"""Frame label that no loss looks at."""

STORE_BYTES = 2 << 30
"""Waveforms kept at most, 9 hours of 16 kHz float32: a corpus of digits fits whole, and a large one leaves room for the
model on a small machine."""


@settings
class BatchConfig:
    """How training rows are put together.

    batch_size: rows in a batch.
    non_speech_probability: share of rows that hold no speech and have an empty text.
    word_share: middle part of a word whose frames are labelled with it, as a fraction of its length.
    """

    batch_size: int = 12
    non_speech_probability: float = 0.04
    word_share: float = 0.8

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {self.batch_size}.")


@dataclass(frozen=True, slots=True)
class Row:
    """One row's audio and what it says."""

    waveform: np.ndarray  # [samples]
    text: str
    words: tuple[tuple[str, int, int], ...] | None  # (word, start sample, end sample); None: nobody knows


@dataclass(frozen=True, slots=True)
class Batch:
    """Tensors of one training step."""

    log_mel: Tensor  # [batch, mels, window frames]
    canvas: Tensor  # [batch, canvas]: text, end of text, pads
    text_lengths: Tensor  # [batch]: tokens before the end of text
    frame_labels: Tensor  # [batch, audio tokens]: id, blank, or IGNORED
    language: str = "en"
    """Of all rows: the prompt names it."""
    number: int = 0
    """Of the step."""

    def to(self, device: torch.device | str) -> "Batch":
        """Copy to a device."""
        return Batch(
            self.log_mel.to(device), self.canvas.to(device), self.text_lengths.to(device),
            self.frame_labels.to(device), self.language, self.number,
        )  # fmt: skip


def _by_language(utterances: Sequence[Utterance]) -> dict[str, list[Utterance]]:
    languages = sorted({utterance.language for utterance in utterances})
    return {language: [u for u in utterances if u.language == language] for language in languages}


def _num_batches(own: dict[str, list[Utterance]], batch_size: int) -> int:
    return sum(-(-len(utterances) // batch_size) for utterances in own.values())


class WaveformStore:
    """Waveforms of whole files, the least recently used ones dropped first; one too long for the store is not kept."""

    def __init__(self, max_bytes: int = STORE_BYTES) -> None:
        self._kept: LRUCache[Any, np.ndarray] = LRUCache(max_bytes, getsizeof=attrgetter("nbytes"))

    @property
    def num_bytes(self) -> int:
        """Bytes of the waveforms that are kept."""
        return int(self._kept.currsize)

    @cachedmethod(lambda self: self._kept)
    def read(self, path: str, config: AudioConfig = AudioConfig()) -> np.ndarray:  # noqa: B008
        """Return a file's samples, mono, float32, 16 kHz; ConfigError where it cannot be read to its end.  [samples]"""
        try:
            with open(path, "rb") as file:
                return np.concatenate(list(open_audio(file, path, config).blocks()))
        except (OSError, RecordingError) as error:
            raise ConfigError(
                f"{path}: the manifest names it, but it cannot be read to its end ({error}). Leave it out of the "
                "manifest."
            ) from error


class Batches(Dataset[Batch]):
    """Batch `step` of a phase, made on demand: every utterance once an epoch, those of like length together.

    Args:
        utterances: what there is to learn from.
        model: window, canvas and ids.
        tokenizer: turns texts into ids.
        config: how rows are put together.
        augmentation: how hard they become at most.
        strength: augmentation strength at the first and at the last step, in [0, 1].
        num_steps: length of the phase.
        seed: of all randomness.

    Raises:
        ConfigError: an utterance's text has words the model does not know, its audio is missing or does not fit the
            model's window, or there is no utterance.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        model: AsrConfig,
        tokenizer: Tokenizer,
        config: BatchConfig,
        augmentation: AugmentationConfig,
        strength: tuple[float, float],
        num_steps: int,
        seed: int,
    ) -> None:
        self._model, self._tokenizer, self._config = model, tokenizer, config
        self._augmentation, self._strength = augmentation, strength
        self._num_steps, self._seed = num_steps, seed
        self._features = FeatureConfig(window_samples=model.window_samples, num_mel_bins=model.encoder["num_mel_bins"])
        if not utterances:
            raise ConfigError("training: there is no utterance to learn from. Give a manifest with some.")
        for utterance in utterances:
            self._check(utterance)
        self._own = _by_language(utterances)
        self._waveforms = WaveformStore()
        self._epoch: tuple[int, list[list[Utterance]]] = (-1, [])

    @staticmethod
    def epoch_length(utterances: Sequence[Utterance], batch_size: int) -> int:
        """Count the batches of an epoch in which each utterance comes once, a language a batch."""
        return _num_batches(_by_language(utterances), batch_size)

    def _check(self, utterance: Utterance) -> None:
        self._tokenizer.encode(utterance.text)
        window_s = seconds(self._model.window_samples)
        if num_samples(utterance.duration) > self._model.window_samples:
            raise ConfigError(
                f"{utterance.audio_filepath}: {utterance.duration:.2f} s do not fit the model's window of "
                f"{window_s:g} s. Leave it out of the manifest or cut it."
            )
        if not os.path.isfile(utterance.audio_filepath):
            raise ConfigError(f"{utterance.audio_filepath}: the manifest names it, but there is no such file.")

    def __len__(self) -> int:
        return self._num_steps

    def __getitem__(self, step: int) -> Batch:
        """Make the batch of one step."""
        rng = np.random.default_rng([self._seed, step])
        progress = step / max(1, self._num_steps - 1)
        strength = self._strength[0] + (self._strength[1] - self._strength[0]) * progress
        language, rows = self._rows(step, rng, strength)
        features = [self._log_mel(row, rng, strength) for row in rows]
        ids = [self._tokenizer.encode(row.text) for row in rows]
        needed = max(
            self._model.canvas.bucket_for(seconds(max(row.waveform.size for row in rows))),
            *(next((b for b in self._model.canvas.buckets if b > len(text)), len(text) + 1) for text in ids),
        )
        prompt = self._model.prompt
        return Batch(
            log_mel=torch.from_numpy(whole_windows(features, self._features)),
            canvas=torch.tensor([canvas_ids(text, needed, prompt.end_text_ids[0], prompt.pad_id) for text in ids]),
            text_lengths=torch.tensor([len(text) for text in ids]),
            frame_labels=torch.from_numpy(np.stack([self._frame_labels(row) for row in rows])),
            language=language,
            number=step,
        )

    def _rows(self, step: int, rng: np.random.Generator, strength: float) -> tuple[str, list[Row]]:
        """Take the utterances whose turn it is, now and then with a row beside them in which nobody speaks."""
        number, place = divmod(step, _num_batches(self._own, self._config.batch_size))
        if self._epoch[0] != number:
            self._epoch = (number, self._shuffled(number))
        utterances = self._epoch[1][place]
        rows = [self._row(utterance, rng, strength) for utterance in utterances]
        if rng.random() < self._config.non_speech_probability * self._config.batch_size:
            longest = max(row.waveform.size for row in rows)
            rows.append(Row(non_speech(max(longest // 2, SAMPLE_RATE_HZ // 4), rng), "", ()))
        return utterances[0].language, rows

    def _shuffled(self, number: int) -> list[list[Utterance]]:
        """Order an epoch: utterances that need the same canvas stand together, batches come in any order."""
        rng = np.random.default_rng([self._seed, number, 1])
        size = self._config.batch_size
        batches: list[list[Utterance]] = []
        for own in self._own.values():
            order = [own[index] for index in rng.permutation(len(own))]
            order.sort(key=lambda utterance: self._model.canvas.bucket_for(utterance.duration))
            batches += [order[start : start + size] for start in range(0, len(order), size)]
        return [batches[index] for index in rng.permutation(len(batches))]

    def _row(self, utterance: Utterance, rng: np.random.Generator, strength: float) -> Row:
        """Make a row of one utterance; ConfigError where its audio cannot be read, or ends before its `offset`."""
        waveform, speed = self._at_speed(utterance, self._draw_speed(rng, strength))
        changed = augment(waveform, self._augmentation, strength, rng)
        return Row(changed, utterance.text, moved_words(utterance, 0, speed))

    def _draw_speed(self, rng: np.random.Generator, strength: float) -> float:
        return rng.uniform(1 - self._augmentation.speed * strength, 1 + self._augmentation.speed * strength)

    def _at_speed(self, utterance: Utterance, speed: float) -> tuple[np.ndarray, float]:
        """Change an utterance's speed, but never so much that it leaves the window; say what the change came to."""
        window_samples = self._model.window_samples
        waveform = read_utterance(utterance, self._waveforms)
        changed = change_speed(waveform, max(speed, waveform.size / window_samples))
        return changed[:window_samples], waveform.size / changed.size

    def _log_mel(self, row: Row, rng: np.random.Generator, strength: float) -> tuple[np.ndarray, float]:
        features, pad_value = log_mel(row.waveform, self._features)
        mask_features(features, float(features.mean()), self._augmentation.mask_probability * strength, rng)
        return features, pad_value

    def _frame_labels(self, row: Row) -> np.ndarray:
        """Label the audio embeddings by the words that sound at their centres.  [audio tokens]"""
        num_frames = self._model.num_audio_tokens
        labels = np.full(num_frames, IGNORED if row.words is None else self._model.blank_id, dtype=np.int64)
        frame_samples = self._model.projector.subsampling * self._model.frame_samples
        centres = np.arange(num_frames) * frame_samples
        for word, start, end in row.words or ():
            (token, *more) = self._tokenizer.encode(word)
            edge = round((end - start) * (1 - self._config.word_share) / 2)
            labels[(centres >= start) & (centres < end)] = IGNORED
            if not more:
                labels[(centres >= start + edge) & (centres < end - edge)] = token
        return labels


def moved_words(utterance: Utterance, position: int, speed: float) -> tuple[tuple[str, int, int], ...] | None:
    """Say where an utterance's words lie in a row: word, start and end sample; `None` where nobody knows."""
    if utterance.words is None:
        return None
    return tuple(
        (word.word, position + round(word.start_sample / speed), position + round(word.end_sample / speed))
        for word in utterance.words
    )


def read_utterance(utterance: Utterance, waveforms: WaveformStore) -> np.ndarray:
    """Read an utterance's samples, float32 mono 16 kHz.  [samples]

    ConfigError where its audio cannot be read, or ends before its `offset`.
    """
    start = num_samples(utterance.offset)
    samples = waveforms.read(utterance.audio_filepath, utterance.audio(AudioConfig()))
    samples = samples[start : start + num_samples(utterance.duration)]
    if samples.size == 0:
        raise ConfigError(f"{utterance.audio_filepath}: ends before {utterance.offset} s. Correct the row's `offset`.")
    return samples
