"""Segments' features in; prompt caches, audio embeddings and CTC's texts out, in batches of one fixed shape."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from operator import itemgetter
from typing import NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from dgasr.features import pad_features
from dgasr.model.asr import AsrModel, keys_values
from dgasr.model.ctc_head import TextsToScore, blank_bias, text_log_likelihoods
from dgasr.model.head import VocabularyScan, scan_vocabulary
from dgasr.model.presets import AsrConfig
from dgasr.prompt import build_prompt
from dgasr.recipe import Recipe
from dgasr.records import SegmentFeatures

CTC_LENGTHS = 8
"""How many lengths the audio is read at for CTC, equally far apart: few shapes, and little read that is silence."""

ENCODED_AT_ONCE = 32
"""Rows of an encoding batch at most: the products fill a GPU by then, and more rows only hold more memory at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CtcText:
    """What CTC reads in a segment.

    ids: its tokens.
    probabilities: of each, the highest that it has in its run of embeddings, in [0, 1].
    end_probability: of the text holding no more: its least likely token's, or its least likely blank's if it has none.
    log_likelihoods: what CTC gives to the greedy text of every shift, nats; empty where all are the same.
    """

    ids: tuple[int, ...]
    probabilities: tuple[float, ...]
    end_probability: float
    log_likelihoods: Mapping[tuple[int, ...], float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EncodedSegment:
    """A segment after the encoders.

    features: what went in.
    keys_values: prompt cache of every backbone layer.  [heads, prompt, head_dim] each
    prompt_state: the backbone encoder's last state, which predicts the first token.  [hidden]
    num_frames: frames of 20 ms that hold audio.
    states: audio embeddings of these frames and of all that depend on them.  [frames, hidden]
    log_partition: of the states, over the vocabulary.  [frames]
    ctc: what CTC reads in it.
    """

    features: SegmentFeatures
    keys_values: list[tuple[Tensor, Tensor]]
    prompt_state: Tensor
    num_frames: int
    states: Tensor
    log_partition: Tensor
    ctc: CtcText


class SegmentEncoder:
    """Runs audio encoder, projector and the backbone's encoder.

    Args:
        model: in evaluation mode.
        recipe: of this model.
        batch_size: rows of every batch, or `ENCODED_AT_ONCE` if that is fewer; the last one is filled up, so that
            shapes never change.
    """

    def __init__(self, model: AsrModel, recipe: Recipe, batch_size: int) -> None:
        self._model, self._recipe, self._batch_size = model, recipe, min(batch_size, ENCODED_AT_ONCE)
        config = model.config
        prompt = build_prompt(model.tokenizer, config.prompt, config.num_audio_tokens, recipe.language)
        self._prompt_ids = torch.tensor(prompt.ids, device=model.device)

    @torch.no_grad()
    def encode(self, features: Iterable[SegmentFeatures]) -> Iterator[EncodedSegment]:
        """Encode segments, pulled a batch ahead.

        Args:
            features: segments with speech.

        Yields:
            Each of them, in order.
        """
        source = iter(features)
        while batch := list(islice(source, self._batch_size)):
            yield from self._encode_batch(batch)

    def _encode_batch(self, batch: Sequence[SegmentFeatures]) -> Iterator[EncodedSegment]:
        model, recipe = self._model, self._recipe
        filled = [*batch, *[batch[-1]] * (self._batch_size - len(batch))]
        log_mel = torch.from_numpy(pad_features(filled, recipe.features)).to(model.device)
        frames = model.encode_audio(log_mel)  # [batch, frames, encoder_width]
        audio_embeddings = self._project(frames)
        prompt_states, cache = model.prefill(model.prompt_embeddings(self._prompt_ids, audio_embeddings))
        audible = [self._read_audio(frames[row], audio_embeddings[row], item) for row, item in enumerate(batch)]
        texts = read_ctc(model, [own.states for own in audible], [own.scan for own in audible])
        for row, (item, own, text) in enumerate(zip(batch, audible, texts, strict=True)):
            yield EncodedSegment(
                features=item,
                keys_values=[(keys[row], values[row]) for keys, values in keys_values(cache)],
                prompt_state=prompt_states[row, -1],
                num_frames=own.num_frames,
                states=own.states,
                log_partition=own.scan.log_partition,
                ctc=text,
            )

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
        return scan_vocabulary(fine, self._model.head_weight, softcap, chunk, blank_bias(self._model.config))


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


def ctc_tokens(config: AsrConfig, num_tokens: int) -> int:
    """Round a number of audio embeddings up to one of the lengths that are read for CTC."""
    step = -(-config.num_audio_tokens // CTC_LENGTHS)
    return min(-(-num_tokens // step) * step, config.num_audio_tokens)


def read_ctc(model: AsrModel, states: Sequence[Tensor], scans: Sequence[VocabularyScan]) -> list[CtcText]:
    """Take the likeliest of the shifts' greedy texts; of equally likely ones the least shifted.

    Audio embeddings stand 160 ms apart, and where a word falls between two of them decides how well it is recognised.
    Alignment needs the embeddings at all shifts anyway, so their greedy texts cost little. All segments are scored
    together: the device is waited for as often as for one.

    Args:
        model: gives the head and its blank.
        states: audio embeddings of each segment every 20 ms, whole strides of the projector's grid.  [frames, hidden]
        scans: of these over the vocabulary, with the blank's bias.  [frames] each

    Source:
        Ours; several views of one audio that vote, as test-time augmentation does.
    """
    read = _greedy_texts(scans, model.config.projector.subsampling, model.config.blank_id)
    scores = text_log_likelihoods(
        model,
        [
            TextsToScore(own, scan.log_partition, [text.ids for text in texts] if len(texts) > 1 else [])
            for own, scan, texts in zip(states, scans, read, strict=True)
        ],
    )
    return [_likeliest(texts, found) for texts, found in zip(read, scores, strict=True)]


def _likeliest(texts: Sequence[CtcText], scores: Sequence[float]) -> CtcText:
    """Choose by scores, where there are any; they are kept, for whoever compares with another text."""
    if not scores:
        return texts[0]
    likelihoods = {text.ids: score for text, score in zip(texts, scores, strict=True)}
    return replace(texts[scores.index(max(scores))], log_likelihoods=likelihoods)


def _greedy_texts(scans: Sequence[VocabularyScan], subsampling: int, blank: int) -> list[list[CtcText]]:
    """Read the different texts of each segment's shifts, the least shifted first."""
    lengths = [len(scan.ids) for scan in scans]
    ids = torch.cat([scan.ids for scan in scans]).cpu().split(lengths)
    log_probs = torch.cat([scan.top_logit - scan.log_partition for scan in scans]).cpu().split(lengths)
    read = []
    for own_ids, own_log_probs in zip(ids, log_probs, strict=True):
        shifts = [_greedy(own_ids[n::subsampling], own_log_probs[n::subsampling], blank) for n in range(subsampling)]
        read.append(list({text.ids: text for text in reversed(shifts)}.values())[::-1])
    return read


def _greedy(ids: Tensor, log_probs: Tensor, blank: int) -> CtcText:
    """Collapse the likeliest ids of one shift's embeddings.  [audio tokens] each"""
    frames = list(zip(ids.tolist(), log_probs.exp().tolist(), strict=True))
    runs = [(token, max(p for _, p in run)) for token, run in groupby(frames, key=itemgetter(0))]
    tokens = [(token, probability) for token, probability in runs if token != blank]
    return CtcText(
        ids=tuple(token for token, _ in tokens),
        probabilities=tuple(probability for _, probability in tokens),
        end_probability=min(probability for _, probability in tokens or frames),
    )
