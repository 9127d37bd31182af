"""Training batches of connected digits: short utterances of one speaker, drawn at random and joined into longer rows.

The joins keep exact word times. Batch `step` is a pure function of (seed, step), as in `dgasr.training.batches`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dgasr.manifests import Utterance, num_samples
from dgasr.records import seconds
from dgasr.training.augmentation import augment, non_speech
from dgasr.training.batches import Batches, Row, moved_words


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawConfig:
    """How rows are drawn.

    max_join: utterances of one speaker joined in a row, at most; 1 leaves utterances as they are.
    gap_s: (shortest, longest) silence between joined utterances, s; short ones are likelier.
    edge_s: longest silence before and after a row's speech, s.
    """

    max_join: int = 1
    gap_s: tuple[float, float] = (0.0, 0.6)
    edge_s: float = 0.5


class DrawnBatches(Batches):
    """Batches whose rows are drawn; utterances of one language.

    Args:
        utterances: what there is to draw from.
        arguments: as `Batches` takes them.
        drawing: how rows are drawn.
    """

    def __init__(self, utterances: Sequence[Utterance], *arguments: Any, drawing: DrawConfig) -> None:
        super().__init__(utterances, *arguments)
        self._drawing = drawing
        by_speaker: dict[str, list[Utterance]] = {}
        for index, utterance in enumerate(utterances):
            by_speaker.setdefault(utterance.speaker or f"utterance {index}", []).append(utterance)
        self._speakers = list(by_speaker.values())
        self._speaker_shares = np.array([len(group) for group in self._speakers]) / len(utterances)

    def _rows(self, step: int, rng: np.random.Generator, strength: float) -> tuple[str, list[Row]]:
        limit_s = self._length_limit_s(rng)
        rows = [self._draw(rng, strength, limit_s) for _ in range(self._config.batch_size)]
        return self._speakers[0][0].language, rows

    def _length_limit_s(self, rng: np.random.Generator) -> float:
        """Choose one canvas bucket for the batch, so that every bucket is trained; longer ones more often."""
        buckets = np.array(self._model.canvas.buckets)
        bucket = rng.choice(buckets, p=buckets / buckets.sum())
        limit_s = (bucket - self._model.canvas.margin_tokens) / self._model.canvas.tokens_per_second
        return min(seconds(self._model.window_samples), limit_s)

    def _draw(self, rng: np.random.Generator, strength: float, limit_s: float) -> Row:
        """Draw one row: speech of one speaker, of `limit_s` unless one utterance is longer, or audio without speech."""
        limit = min(self._model.window_samples, num_samples(limit_s))
        if rng.random() < self._config.non_speech_probability:
            return Row(non_speech(int(rng.integers(limit // 8, limit + 1)), rng), "", ())
        group = self._speakers[rng.choice(len(self._speakers), p=self._speaker_shares)]
        if self._drawing.max_join == 1:
            return self._row(group[rng.integers(len(group))], rng, strength)
        row = self._joined(group, rng, strength, limit)
        return Row(augment(row.waveform, self._augmentation, strength, rng), row.text, row.words)

    def _joined(self, group: list[Utterance], rng: np.random.Generator, strength: float, limit: int) -> Row:
        pieces = [_silence(rng.uniform(0, self._drawing.edge_s) * rng.random(), rng)]
        words: list[tuple[str, int, int]] | None = []
        texts: list[str] = []
        position = pieces[0].size
        speed = self._draw_speed(rng, strength)
        gap_scale = rng.random()
        for _ in range(rng.integers(1, self._drawing.max_join + 1)):
            utterance = group[int(rng.integers(len(group)))]
            waveform, own_speed = self._at_speed(utterance, speed)
            if position + waveform.size > limit and texts:
                break
            if not texts:  # a long first utterance leaves less room for silence before it
                pieces[0] = pieces[0][: self._model.window_samples - waveform.size]
                position = pieces[0].size
            pieces.append(waveform)
            texts.append(utterance.text)
            moved = moved_words(utterance, position, own_speed)
            words = None if words is None or moved is None else [*words, *moved]
            low, high = self._drawing.gap_s
            gap = _silence(low + (high - low) * rng.random() ** 2 * gap_scale, rng)
            pieces.append(gap)
            end = position + waveform.size
            position = end + gap.size
        pieces.append(_silence(rng.uniform(0, self._drawing.edge_s) * rng.random(), rng))
        # Silence after the last word must not push a row into the next canvas bucket: short ones would go untrained.
        waveform = np.concatenate(pieces)[: max(limit, end)]
        return Row(waveform, " ".join(texts), None if words is None else tuple(words))


def _silence(duration_s: float, rng: np.random.Generator) -> np.ndarray:
    return (rng.standard_normal(num_samples(duration_s)) * 1e-5).astype(np.float32)
