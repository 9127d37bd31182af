"""Token after token through the backbone's causal encoder: texts of segments, and how sure each token is.

CTC may have a say in each token: alone the causal encoder now and then says a word over and over, or passes over a
stretch of audio, which CTC's prefix scores forbid. Knows nothing of canvases.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from dgasr.alignment.prefix import PrefixScores
from dgasr.device import fetch, upload
from dgasr.model.asr import AsrModel
from dgasr.model.ctc_head import IMPOSSIBLE, label_log_probs
from dgasr.model.head import greedy, vocabulary_log_probs
from dgasr.recipe import Recipe
from dgasr.transcriber.encoding import EncodedSegment, prompt_cache

CTC_SHARE = 0.5
"""What CTC's log-likelihood counts beside the causal encoder's (docs/experiments.md, 2026-11-29)."""

CANDIDATES = 8
"""Likeliest next tokens by the causal encoder that CTC is asked about."""


@torch.no_grad()
def greedy_texts(
    model: AsrModel, recipe: Recipe, batch: Sequence[EncodedSegment]
) -> list[tuple[list[int], list[float]]]:
    """Say texts, the token that the causal encoder finds likeliest each time; ids and probabilities of each segment."""
    said = _Said(model, batch)
    texts: list[tuple[list[int], list[float]]] = [([], []) for _ in batch]
    unfinished = set(range(len(batch)))
    for _ in range(model.config.canvas.buckets[-1]):
        ids, log_probs = greedy(said.states, model.head_weight, model.config.softcap, recipe.decode.vocabulary_chunk)
        found, sure = fetch([ids, log_probs.exp()])
        for row in sorted(unfinished):
            token = int(found[row])
            if token in model.config.prompt.end_text_ids:
                unfinished.discard(row)
            else:
                texts[row][0].append(token)
                texts[row][1].append(float(sure[row]))
        if not unfinished:
            break
        said.append(ids)
    return texts


@dataclass(kw_only=True, slots=True)
class _Text:
    """A text in the making, and the likeliest end that it has passed."""

    ids: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    log_prob: float = 0.0
    """Of the ids by the causal encoder, nats."""
    end_score: float = -np.inf
    end: int = 0
    """How many ids the text has that ends there."""


@torch.no_grad()
def joint_texts(model: AsrModel, batch: Sequence[EncodedSegment]) -> list[tuple[list[int], list[float]]]:
    """Say texts, each time the token that causal encoder and CTC together find likeliest.

    Args:
        model: in evaluation mode.
        batch: segments; the number of rows decides how products round, so it has to be the same always.

    Returns:
        Ids, and the causal encoder's probability of each, of each segment; as many as the largest canvas has places
        where no end was found.

    Source:
        One-pass joint decoding of Watanabe et al. 2017, section III.C, with one hypothesis: four gain nothing (0 of 347
        words, docs/experiments.md). The mean over the projector's shifts is ours.
    """
    said, config = _Said(model, batch), model.config
    heard = _Heard(model, batch)
    scores = PrefixScores(heard.log_probs([[config.blank_id]] * len(batch))[:, :, 0])
    texts, unfinished = [_Text() for _ in batch], set(range(len(batch)))
    not_text = [*config.prompt.end_text_ids, config.blank_id]
    for _ in range(config.canvas.buckets[-1]):
        log_probs = vocabulary_log_probs(said.states, model.head_weight, config.softcap)  # [rows, vocab]
        end = log_probs[:, list(config.prompt.end_text_ids)].amax(dim=1)
        log_probs[:, not_text] = -torch.inf
        found = log_probs.topk(CANDIDATES, dim=1)
        end_log_probs, values, candidates = fetch([end, found.values, found.indices])
        candidates = candidates.astype(np.int64)  # they were fetched as floats
        by_ctc = heard.log_probs(candidates.tolist())
        begun = _mean_of_views(scores.extended(candidates, by_ctc))  # [rows, candidates]
        whole = _mean_of_views(scores.whole())  # [rows]
        chosen = (values + CTC_SHARE * begun).argmax(axis=1)
        for row in sorted(unfinished):
            text, pick = texts[row], chosen[row]
            end_score = text.log_prob + end_log_probs[row] + CTC_SHARE * whole[row]
            if end_score > text.end_score:
                text.end_score, text.end = end_score, len(text.ids)
            text.log_prob += float(values[row, pick])
            if text.log_prob + CTC_SHARE * begun[row, pick] <= text.end_score:
                unfinished.discard(row)  # no continuation is likelier than one that has ended
            else:
                text.ids.append(int(candidates[row, pick]))
                text.probabilities.append(float(np.exp(values[row, pick])))
        if not unfinished:
            break
        ids = np.take_along_axis(candidates, chosen[:, None], axis=1)[:, 0]
        scores.extend(ids, np.take_along_axis(by_ctc, chosen[:, None, None, None], axis=2)[:, :, 0])
        said.append(upload(torch.from_numpy(ids), model.device))
    ends = [len(text.ids) if row in unfinished else text.end for row, text in enumerate(texts)]
    return [(text.ids[:end], text.probabilities[:end]) for text, end in zip(texts, ends, strict=True)]


class _Said:
    """The causal encoder's states behind what has been said so far."""

    def __init__(self, model: AsrModel, batch: Sequence[EncodedSegment]) -> None:
        self._model, self._cache = model, prompt_cache(model, batch)
        self.states = torch.stack([encoded.prompt_state for encoded in batch])
        """Each predicts the next token.  [rows, hidden]"""

    def append(self, ids: Tensor) -> None:
        """Say one token more in each row; [rows]"""
        embeddings = self._model.backbone.model.encoder.get_input_embeddings()(ids.unsqueeze(1))
        self.states = self._model.prefill(embeddings, self._cache)[0][:, -1]


class _Heard:
    """CTC's log-probabilities of a few labels in each row, where rows are as long as the longest."""

    def __init__(self, model: AsrModel, batch: Sequence[EncodedSegment]) -> None:
        self._model, self._batch = model, batch
        self._num_tokens = max(len(encoded.states) for encoded in batch) // model.config.projector.subsampling

    def log_probs(self, labels: Sequence[Sequence[int]]) -> np.ndarray:
        """Return those of labels that are not the blank, or of the blank alone.

        Args:
            labels: ids.  [rows, labels]

        Returns:
            Natural logarithms; behind a row's audio 0 for the blank and minus infinity for all else.
            [rows, audio tokens, labels, shifts]
        """
        model, blank = self._model, self._model.config.blank_id
        own = [
            label_log_probs(model, encoded.states, encoded.log_partition, upload(torch.tensor(ids), model.device))
            for encoded, ids in zip(self._batch, labels, strict=True)
        ]  # [frames, 1 + labels] each
        num_shifts = model.config.projector.subsampling
        shape = (len(labels), self._num_tokens, len(labels[0]), num_shifts)
        laid_out = np.full(shape, 0.0 if labels[0][0] == blank else -np.inf)
        for row, found in enumerate(fetch(own)):
            by_token = found[:, 1:].reshape(-1, num_shifts, shape[2]).transpose(0, 2, 1)
            laid_out[row, : len(by_token)] = by_token
        return laid_out


def _mean_of_views(log_likelihoods: np.ndarray) -> np.ndarray:
    return np.maximum(log_likelihoods, IMPOSSIBLE).mean(axis=-1)
