"""Utterances in, training batches out. Batch `step` is a pure function of (seed, step), which makes resuming exact.

Short utterances of one speaker may be joined into longer ones with silences between: the joins keep exact word times.
Knows features and augmentation, no model and no loss.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import ClassVar

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dgasr.errors import ConfigError
from dgasr.features import FeatureConfig, log_mel
from dgasr.model.presets import AsrConfig
from dgasr.prompt import Tokenizer, canvas_ids
from dgasr.records import SAMPLE_RATE_HZ, seconds
from dgasr.training.augmentation import AugmentationConfig, augment, change_speed, mask_features, non_speech
from dgasr.training.manifests import Utterance, num_samples

IGNORED = -100
"""Frame label that no loss looks at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchConfig:
    """How training rows are put together.

    batch_size: rows in a batch.
    max_join: utterances of one speaker joined in a row, at most; 1 leaves utterances as they are.
    gap_s: (shortest, longest) silence between joined utterances, s; short ones are likelier.
    edge_s: longest silence before and after a row's speech, s.
    non_speech_probability: share of rows that hold no speech and have an empty text.
    word_share: middle part of a word whose frames are labelled with it, as a fraction of its length.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    batch_size: int = 12
    max_join: int = 1
    gap_s: tuple[float, float] = (0.0, 0.6)
    edge_s: float = 0.5
    non_speech_probability: float = 0.04
    word_share: float = 0.8

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.max_join < 1:
            raise ConfigError(f"batch_size and max_join must be at least 1, got {self.batch_size}, {self.max_join}.")


@dataclass(frozen=True, slots=True)
class Batch:
    """Tensors of one training step."""

    log_mel: Tensor  # [batch, mels, window frames]
    canvas: Tensor  # [batch, canvas]: text, end of text, pads
    text_lengths: Tensor  # [batch]: tokens before the end of text
    frame_labels: Tensor  # [batch, audio tokens]: id, blank, or IGNORED

    def to(self, device: str) -> "Batch":
        """Copy to a device."""
        return Batch(*(getattr(self, field.name).to(device) for field in fields(self)))


@dataclass(frozen=True, slots=True)
class _Row:
    waveform: np.ndarray
    text: str
    words: tuple[tuple[str, int, int], ...] | None  # (word, start sample, end sample)


class Batches(Dataset[Batch]):
    """Batch `step` of a phase, made on demand.

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
        by_speaker: dict[str, list[Utterance]] = {}
        for index, utterance in enumerate(utterances):
            self._check(utterance)
            by_speaker.setdefault(utterance.speaker or f"utterance {index}", []).append(utterance)
        self._speakers = list(by_speaker.values())
        self._speaker_shares = np.array([len(group) for group in self._speakers]) / len(utterances)

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
        limit_s = self._length_limit_s(rng)
        rows = [self._row(rng, strength, limit_s) for _ in range(self._config.batch_size)]
        features = [self._log_mel(row, rng, strength) for row in rows]
        ids = [self._tokenizer.encode(row.text) for row in rows]
        needed = max(
            self._model.canvas.bucket_for(seconds(max(row.waveform.size for row in rows))),
            *(next((b for b in self._model.canvas.buckets if b > len(text)), len(text) + 1) for text in ids),
        )
        prompt = self._model.prompt
        return Batch(
            log_mel=torch.from_numpy(np.stack(features)),
            canvas=torch.tensor([canvas_ids(text, needed, prompt.end_text_ids[0], prompt.pad_id) for text in ids]),
            text_lengths=torch.tensor([len(text) for text in ids]),
            frame_labels=torch.from_numpy(np.stack([self._frame_labels(row) for row in rows])),
        )

    def _length_limit_s(self, rng: np.random.Generator) -> float:
        """Choose one canvas bucket for the batch, so that every bucket is trained; longer ones more often."""
        buckets = np.array(self._model.canvas.buckets)
        bucket = rng.choice(buckets, p=buckets / buckets.sum())
        limit_s = (bucket - self._model.canvas.margin_tokens) / self._model.canvas.tokens_per_second
        return min(seconds(self._model.window_samples), limit_s)

    def _row(self, rng: np.random.Generator, strength: float, limit_s: float) -> _Row:
        limit = min(self._model.window_samples, num_samples(limit_s))
        if rng.random() < self._config.non_speech_probability:
            return _Row(non_speech(int(rng.integers(limit // 8, limit + 1)), rng), "", ())
        row = self._joined(rng, strength, limit) if self._config.max_join > 1 else self._single(rng, strength)
        return _Row(augment(row.waveform, self._augmentation, strength, rng), row.text, row.words)

    def _single(self, rng: np.random.Generator, strength: float) -> _Row:
        group = self._speakers[rng.choice(len(self._speakers), p=self._speaker_shares)]
        utterance = group[rng.integers(len(group))]
        waveform, speed = self._at_speed(utterance, self._draw_speed(rng, strength))
        return _Row(waveform, utterance.text, _moved(utterance, 0, speed))

    def _joined(self, rng: np.random.Generator, strength: float, limit: int) -> _Row:
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
                pieces[0] = pieces[0][: self._model.window_samples - waveform.size]
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
        return _Row(waveform, " ".join(texts), None if words is None else tuple(words))

    def _draw_speed(self, rng: np.random.Generator, strength: float) -> float:
        return rng.uniform(1 - self._augmentation.speed * strength, 1 + self._augmentation.speed * strength)

    def _at_speed(self, utterance: Utterance, speed: float) -> tuple[np.ndarray, float]:
        """Change an utterance's speed, but never so much that it leaves the window; say what the change came to."""
        waveform = _waveform(utterance)
        changed = change_speed(waveform, max(speed, waveform.size / self._model.window_samples))
        return changed[: self._model.window_samples], waveform.size / changed.size

    def _log_mel(self, row: _Row, rng: np.random.Generator, strength: float) -> np.ndarray:
        features, pad_value = log_mel(row.waveform, self._features)
        mask_features(features, float(features.mean()), self._augmentation.mask_probability * strength, rng)
        window = np.full((features.shape[0], self._features.window_frames), pad_value, dtype=np.float32)
        window[:, : features.shape[1]] = features
        return window

    def _frame_labels(self, row: _Row) -> np.ndarray:
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


def _moved(utterance: Utterance, position: int, speed: float) -> tuple[tuple[str, int, int], ...] | None:
    if utterance.words is None:
        return None
    return tuple(
        (word.word, position + round(word.start_sample / speed), position + round(word.end_sample / speed))
        for word in utterance.words
    )


def _silence(duration_s: float, rng: np.random.Generator) -> np.ndarray:
    return (rng.standard_normal(num_samples(duration_s)) * 1e-5).astype(np.float32)


def _waveform(utterance: Utterance) -> np.ndarray:
    """The utterance's samples, float32 mono 16 kHz.  [samples]"""
    start = num_samples(utterance.offset)
    samples = _file(utterance.audio_filepath)[start : start + num_samples(utterance.duration)]
    if samples.size == 0:
        raise ConfigError(f"{utterance.audio_filepath}: ends before {utterance.offset} s. Correct the row's `offset`.")
    return samples


@lru_cache(maxsize=20_000)
def _file(path: str) -> np.ndarray:
    try:
        samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise ConfigError(f"{path}: the manifest names it, but it cannot be read ({error}).") from error
    mono = samples.mean(axis=1)
    return mono if rate_hz == SAMPLE_RATE_HZ else soxr.resample(mono, rate_hz, SAMPLE_RATE_HZ)
