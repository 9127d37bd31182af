"""Segments' features in; prompt caches, audio embeddings and CTC's texts out, in batches of one fixed shape."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from dgasr.device import fetch, upload
from dgasr.features import pad_features
from dgasr.model.asr import AsrModel, keys_values
from dgasr.model.ctc_head import TextsToScore, label_log_probs, text_log_likelihoods
from dgasr.model.head import VocabularyScan, scan_vocabulary
from dgasr.model.presets import AsrConfig
from dgasr.prompt import build_prompt
from dgasr.recipe import Recipe
from dgasr.records import SegmentFeatures

CTC_LENGTHS = 8
"""How many lengths the audio is read at for CTC, equally far apart: few shapes, and little read that is silence."""

ENCODED_AT_ONCE = 16
"""Rows of an encoding batch at most: by then products take longer than reading the weights, and what is encoded waits
for free rows, 50 MB of prompt cache each in the full model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CtcText:
    """What CTC reads in a segment.

    ids: its tokens.
    probabilities: of each, the highest that it has in its run of embeddings, in [0, 1].
    log_likelihoods: what CTC gives to the greedy text of every shift, nats; empty where all are the same.
    """

    ids: tuple[int, ...]
    probabilities: tuple[float, ...]
    log_likelihoods: Mapping[tuple[int, ...], float] = field(default_factory=dict)


@dataclass(kw_only=True, slots=True, eq=False)
class EncodedSegment:
    """A segment after the encoders.

    features: what went in.
    keys_values: prompt cache of every backbone layer, in storage of its own; once the segment is in a decoder's row, a
        view of that row, good until another segment enters it.  [heads, prompt, head_dim] each
    prompt_state: the backbone encoder's last state, which predicts the first token.  [hidden]
    num_frames: frames of 20 ms that hold audio.
    states: audio embeddings of these frames and of all that depend on them.  [frames, hidden]
    log_partition: of the states, over the vocabulary.  [frames]
    texts: the different greedy texts of CTC's shifts, the least shifted first.
    scores: how likely CTC finds these texts, nats; of a single one nothing.  [texts] or [0]
    """

    features: SegmentFeatures
    keys_values: list[tuple[Tensor, Tensor]]
    prompt_state: Tensor
    num_frames: int
    states: Tensor
    log_partition: Tensor
    texts: Sequence[CtcText]
    scores: Tensor

    @property
    def ctc(self) -> CtcText:
        """What CTC reads in it; waits for the device where shifts differ."""
        return self.likeliest(self.scores.cpu().numpy())

    def likeliest(self, scores: np.ndarray) -> CtcText:
        """Take the likeliest of the shifts' greedy texts; of equally likely ones the least shifted.

        Audio embeddings stand 160 ms apart, and where a word falls between two of them decides how well it is
        recognised. Alignment needs the embeddings at all shifts anyway, so their greedy texts cost little. Of `scores`,
        fetched from the device; the text has the scores of all, for a later comparison with another text. Ours; several
        views of one audio that vote, as test-time augmentation does.
        """
        if not len(scores):
            return self.texts[0]
        likelihoods = {text.ids: float(score) for text, score in zip(self.texts, scores, strict=True)}
        return replace(self.texts[int(scores.argmax())], log_likelihoods=likelihoods)

    def keep_prompt(self) -> None:
        """Copy the prompt cache out of the row that it is in."""
        self.keys_values = [(keys.clone(), values.clone()) for keys, values in self.keys_values]


class SegmentEncoder:
    """Runs audio encoder, projector and the backbone's encoder.

    Args:
        model: in evaluation mode.
        recipe: of this model.
        batch_size: rows of every batch, or `ENCODED_AT_ONCE` if that is fewer, or the model's `rows_at_once`; the last
            one is filled up, so that shapes never change.
    """

    def __init__(self, model: AsrModel, recipe: Recipe, batch_size: int) -> None:
        self._model, self._recipe = model, recipe
        self.batch_size = model.rows_at_once or min(batch_size, ENCODED_AT_ONCE)
        config = model.config
        prompt = build_prompt(model.tokenizer, config.prompt, config.num_audio_tokens, recipe.language)
        self.prompt_ids = torch.tensor(prompt, device=model.device)

    def encode(self, features: Iterable[SegmentFeatures]) -> Iterator[EncodedSegment]:
        """Encode segments with speech, pulled a batch ahead, in order."""
        source = iter(features)
        while batch := list(islice(source, self.batch_size)):
            yield from self.encode_batch(batch)

    @torch.no_grad()
    def encode_batch(self, batch: Sequence[SegmentFeatures]) -> list[EncodedSegment]:
        """Encode at most `batch_size` segments; the device is waited for once."""
        model = self._model
        frames, audio_embeddings = self.hear([*batch, *[batch[-1]] * (self.batch_size - len(batch))])
        prompt_states, cache = model.prefill(
            model.prompt_embeddings(self.prompt_ids, audio_embeddings),
            positions=model.prompt_positions(self.prompt_ids, audio_embeddings),
        )
        layers = keys_values(cache)
        del cache
        prompts: list[list[tuple[Tensor, Tensor]]] = [[] for _ in batch]
        while layers:  # what has been copied goes, layer by layer: no row's cache holds the batch's
            keys, values = layers.pop(0)
            for row, prompt in enumerate(prompts):
                prompt.append((keys[row].clone(), values[row].clone()))
        audible = [self._read_audio(frames[row], audio_embeddings[row], item) for row, item in enumerate(batch)]
        texts = read_ctc(model, [own.scan for own in audible])
        scores = text_log_likelihoods(
            model,
            [
                TextsToScore(own.states, own.scan.log_partition, [text.ids for text in said] if len(said) > 1 else [])
                for own, said in zip(audible, texts, strict=True)
            ],
        )
        return [
            EncodedSegment(
                features=item, keys_values=prompt, prompt_state=prompt_states[row, -1].clone(),
                num_frames=own.num_frames, states=own.states, log_partition=own.scan.log_partition, texts=said,
                scores=score,
            )
            for row, (item, prompt, own, said, score) in enumerate(
                zip(batch, prompts, audible, texts, scores, strict=True)
            )
        ]  # fmt: skip

    @torch.no_grad()
    def hear(self, batch: Sequence[SegmentFeatures]) -> tuple[Tensor, Tensor]:
        """Run audio encoder and projector; [batch, frames, encoder_width] and [batch, audio tokens, hidden]."""
        log_mel = upload(torch.from_numpy(pad_features(batch, self._recipe.features)), self._model.device)
        frames = self._model.encode_audio(log_mel)
        return frames, self._project(frames)

    def _read_audio(self, frames: Tensor, embeddings: Tensor, item: SegmentFeatures) -> "_Audible":
        """Read one segment's audio every 20 ms, as far as it goes; [frames, encoder_width], [audio tokens, hidden]."""
        config = self._model.config
        num_frames = -(-item.segment.num_samples // self._recipe.alignment.frame_samples)
        # Convolutions reach over the audio's end: the embedding behind it may still say its last sound.
        num_tokens = min(-(-num_frames // config.projector.subsampling) + 1, config.num_audio_tokens)
        fine = self._refine(frames, embeddings[: ctc_tokens(config, num_tokens)])
        states = fine[: num_tokens * config.projector.subsampling]
        scan = VocabularyScan(*(values[: len(states)] for values in self._scan(fine)))
        return _Audible(num_frames, states, scan)

    def _project(self, frames: Tensor) -> Tensor:
        """Make the audio embeddings of whole windows; [batch, audio tokens, hidden].

        Row by row: convolutions of one row sum in another order than those of several, and so would a batch of one.
        """
        return torch.cat([self._model.projector(row) for row in frames.split(1)])

    def _refine(self, frames: Tensor, embeddings: Tensor) -> Tensor:
        """Read the audio every 20 ms, as far as `embeddings` go; [frames, hidden]."""
        return self._model.projector.forward_shifted(frames, embeddings)

    def _scan(self, fine: Tensor) -> VocabularyScan:
        """Read the vocabulary at every embedding."""
        chunk, softcap = self._recipe.decode.vocabulary_chunk, self._model.config.softcap
        return scan_vocabulary(fine, self._model.head_weight, softcap, chunk, self._model.config.blank_logit)


class _Audible(NamedTuple):
    """What of an `EncodedSegment` the audio alone says, and the vocabulary at its states."""

    num_frames: int
    states: Tensor
    scan: VocabularyScan


def prompt_cache(model: AsrModel, batch: Sequence[EncodedSegment]) -> DynamicCache:
    """Stack the prompt caches of segments, for the backbone's causal encoder to go on from."""
    cache = DynamicCache(config=model.backbone.config.get_text_config())
    for index in range(len(batch[0].keys_values)):
        keys, values = zip(*(encoded.keys_values[index] for encoded in batch), strict=True)
        cache.update(torch.stack(keys), torch.stack(values), index)
    return cache


def aligned_log_probs(model: AsrModel, encoded: EncodedSegment, labels: Tensor) -> Tensor:
    """Compute the CTC log-probabilities that `read_transcript` takes, on the device.

    Of the blank and of each label, where there is audio.  [labels] on the model's device → [frames, 1 + labels]
    """
    frames = slice(encoded.num_frames)
    return label_log_probs(model, encoded.states[frames], encoded.log_partition[frames], labels)


def ctc_tokens(config: AsrConfig, num_tokens: int) -> int:
    """Round a number of audio embeddings up to one of the lengths that are read for CTC."""
    step = -(-config.num_audio_tokens // CTC_LENGTHS)
    return min(-(-num_tokens // step) * step, config.num_audio_tokens)


def read_ctc(model: AsrModel, scans: Sequence[VocabularyScan]) -> list[list[CtcText]]:
    """Read the greedy text of every shift of the projector's grid: the different ones, the least shifted first.

    Of scans, fetched together, of segments' audio embeddings every 20 ms, whole strides of the grid, over the
    vocabulary with the blank's bias.  [frames] each
    """
    found = fetch([values for scan in scans for values in (scan.ids, scan.top_logit - scan.log_partition)])
    subsampling, blank = model.config.projector.subsampling, model.config.blank_id
    return [
        _greedy_texts(ids.reshape(-1, subsampling).T, log_probs.reshape(-1, subsampling).T, blank)
        for ids, log_probs in zip(found[::2], found[1::2], strict=True)
    ]


def _greedy_texts(ids: np.ndarray, log_probs: np.ndarray, blank: int) -> list[CtcText]:
    """Collapse the likeliest ids of every shift's embeddings; different texts, in order.  [shifts, audio tokens]"""
    begins = np.ones(ids.shape, dtype=bool)
    begins[:, 1:] = ids[:, 1:] != ids[:, :-1]
    runs = np.flatnonzero(begins)
    tokens, peaks = ids.ravel()[runs].astype(np.int64), np.exp(np.maximum.reduceat(log_probs.ravel(), runs))
    is_said = tokens != blank
    ends = np.searchsorted(runs[is_said] // ids.shape[1], np.arange(1, len(ids)))
    texts: dict[tuple[int, ...], CtcText] = {}
    for said, sure in zip(np.split(tokens[is_said], ends), np.split(peaks[is_said], ends), strict=True):
        text = CtcText(ids=tuple(said.tolist()), probabilities=tuple(sure.tolist()))
        texts.setdefault(text.ids, text)
    return list(texts.values())
