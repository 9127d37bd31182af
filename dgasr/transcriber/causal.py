"""Token after token through the backbone's causal encoder: texts of segments, and how sure each token is.

CTC may have a say in each token: alone the causal encoder now and then says a word over and over, or passes over a
stretch of audio, which CTC's prefix scores forbid. Knows nothing of canvases.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from dgasr.alignment.ctc import PrefixScores
from dgasr.device import fetch, upload
from dgasr.model.asr import AsrModel, keys_values
from dgasr.model.ctc_head import IMPOSSIBLE, label_log_probs
from dgasr.model.head import vocabulary_log_probs
from dgasr.prompt import Spelling
from dgasr.transcriber.encoding import EncodedSegment, prompt_cache

Array = np.ndarray

CTC_SHARE = 0.5
"""What CTC's log-likelihood counts beside the causal encoder's (docs/experiments.md, 2026-11-29)."""

CANDIDATES = 8
"""Likeliest next tokens of each text by the causal encoder that CTC is asked about."""

BEAM = 4
"""Texts of a segment that are continued together (docs/experiments.md, 2026-11-29, "Words that are words")."""

WORD_PENALTY = 6.0
"""What a word costs that is not on the model's list, nats (likewise)."""


class CausalText(NamedTuple):
    """A text that the causal encoder says, with CTC's help."""

    ids: list[int]
    """As many as the largest canvas has places where no end was found."""
    probabilities: list[float]
    """Of each token by the causal encoder, given the word list, in [0, 1]."""
    log_prob: float
    """Of all tokens and the end, if there is one, by the causal encoder alone, nats."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Text:
    """A text in the making.

    ids: its tokens.
    probabilities: of each, by the causal encoder, given the word list.
    log_prob: of all of them by the causal encoder, nats; of an ended text with its end.
    spelling: its words.
    """

    ids: tuple[int, ...] = ()
    probabilities: tuple[float, ...] = ()
    log_prob: float = 0.0
    spelling: Spelling = field(default_factory=Spelling)


@torch.no_grad()
def joint_texts(model: AsrModel, batch: Sequence[EncodedSegment]) -> list[CausalText]:
    """Say the texts that causal encoder and CTC together find likeliest, by a beam search.

    Args:
        model: in evaluation mode. Where its tokenizer has a word list, other words cost `WORD_PENALTY`.
        batch: segments; the number of rows decides how products round, so it has to be the same always.

    Returns:
        One text for each segment.

    Source:
        One-pass joint decoding of Watanabe et al. 2017, section III.C. The mean over the projector's shifts and the
        word list are ours.
    """
    said, heard, config = _Said(model, batch), _Heard(model, batch), model.config
    scores = PrefixScores(heard.log_probs(np.full((len(batch) * BEAM, 1), config.blank_id), behind=0.0)[:, :, 0])
    speller, not_text = _Speller(model), [*config.prompt.end_text_ids, config.blank_id]
    beams = [_Beam(speller) for _ in batch]
    for _ in range(config.canvas.buckets[-1]):
        log_probs = vocabulary_log_probs(said.states, model.head_weight, config.softcap)  # [rows, vocab]
        end = log_probs[:, list(config.prompt.end_text_ids)].amax(dim=1)
        log_probs[:, not_text] = -torch.inf
        found = log_probs.topk(CANDIDATES, dim=1)
        end_log_probs, values, ids = fetch([end, found.values, found.indices])
        ids = ids.astype(np.int64)  # they were fetched as floats
        by_ctc = heard.log_probs(ids, behind=-np.inf)
        begun = CTC_SHARE * _mean_of_views(scores.extended(ids, by_ctc))  # [rows, candidates]
        whole = CTC_SHARE * _mean_of_views(scores.whole())  # [rows]
        rows, picks = np.arange(len(ids)) // BEAM * BEAM, np.zeros(len(ids), dtype=np.int64)
        for index, beam in enumerate(beams):
            own = slice(index * BEAM, (index + 1) * BEAM)
            for place, (row, pick) in enumerate(
                beam.grow(ids[own], values[own], begun[own], end_log_probs[own], whole[own])
            ):
                rows[own][place], picks[own][place] = own.start + row, pick
        if not any(beam.texts for beam in beams):
            break
        tokens = ids[rows, picks]
        scores.select(rows)
        scores.extend(tokens, by_ctc[rows, :, picks])
        said.select(rows)
        said.append(upload(torch.from_numpy(tokens), model.device))
    texts = [beam.likeliest for beam in beams]
    return [CausalText(list(text.ids), list(text.probabilities), text.log_prob) for text in texts]


class _Beam:
    """The likeliest texts in the making of one segment, and the likeliest one that has ended."""

    def __init__(self, speller: "_Speller") -> None:
        self._speller = speller
        self.texts = [_Text()]
        """Best first; none where no continuation is likelier than a text that has ended."""
        self._ended, self._ended_score = _Text(), -np.inf

    @property
    def likeliest(self) -> _Text:
        """The text to take: an ended one, if there was one in time."""
        return self.texts[0] if self.texts else self._ended

    def grow(
        self, ids: Array, log_probs: Array, begun: Array, end_log_probs: Array, whole: Array
    ) -> list[tuple[int, int]]:
        """Continue each text by its likeliest tokens, and keep the likeliest of all.

        Args:
            ids: candidates for the next token of each text.  [texts, candidates]
            log_probs: of these, by the causal encoder.  [texts, candidates]
            begun: what CTC adds for a text that goes on so.  [texts, candidates]
            end_log_probs: of the end behind each text, by the causal encoder.  [texts]
            whole: what CTC adds for a text that ends there.  [texts]

        Returns:
            Of each text that was kept, which one it continues, by which candidate.
        """
        longer: list[tuple[float, int, int, _Text]] = []
        for row, text in enumerate(self.texts):
            ended = replace(text, log_prob=text.log_prob + float(end_log_probs[row]))
            score = ended.log_prob + whole[row] - self._speller.cost(text.spelling, is_whole=True)
            if score > self._ended_score:
                self._ended, self._ended_score = ended, score
            spellings = [self._speller.extended(text.spelling, token) for token in ids[row].tolist()]
            costs = np.array([self._speller.cost(spelling, is_whole=False) for spelling in spellings])
            sure = _with_costs(log_probs[row], costs - self._speller.cost(text.spelling, is_whole=False))
            for pick, spelling in enumerate(spellings):
                grown = _Text(
                    ids=(*text.ids, int(ids[row, pick])), probabilities=(*text.probabilities, sure[pick]),
                    log_prob=text.log_prob + float(log_probs[row, pick]), spelling=spelling,
                )  # fmt: skip
                longer.append((grown.log_prob + begun[row, pick] - costs[pick], row, pick, grown))
        kept = sorted((own for own in longer if own[0] > self._ended_score), key=lambda own: -own[0])[:BEAM]
        self.texts = [text for *_, text in kept]
        return [(row, pick) for _, row, pick, _ in kept]


def _with_costs(log_probs: Array, costs: Array) -> list[float]:
    """Weigh the probabilities of a text's next tokens by what the words cost that they begin or spoil.

    A known word among misspellings is surer than the causal encoder by itself finds it, which knows no list. All other
    tokens, the end among them, cost nothing. Logarithms are natural, costs nats.  [candidates] each
    """
    probabilities = np.exp(log_probs)
    others = max(0.0, 1.0 - float(probabilities.sum()))
    weighted = probabilities * np.exp(-costs)
    return list((weighted / (weighted.sum() + others)).tolist())


def unknown_words_cost(model: AsrModel, ids: Sequence[int]) -> float:
    """Return what the words of a text cost that are not on the model's list, nats; nothing, where it has none."""
    words = model.tokenizer.word_list
    return 0.0 if words is None else WORD_PENALTY * words.num_unknown(model.tokenizer.decode(list(ids)))


class _Speller:
    """The same, of texts that grow token by token."""

    def __init__(self, model: AsrModel) -> None:
        self._words = model.tokenizer.word_list
        self._pieces = model.tokenizer.pieces() if self._words else []

    def extended(self, spelling: Spelling, token: int) -> Spelling:
        """Append a token's piece."""
        return spelling if self._words is None else spelling.extended(self._pieces[token], self._words)

    def cost(self, spelling: Spelling, *, is_whole: bool) -> float:
        """Return nats for a text that ends, or goes on, behind what is spelt."""
        if self._words is None:
            return 0.0
        unknown = spelling.num_finished(self._words) if is_whole else spelling.num_unfinished(self._words)
        return WORD_PENALTY * unknown


class _Said:
    """The causal encoder's states behind what has been said so far, in `BEAM` texts of each segment."""

    def __init__(self, model: AsrModel, batch: Sequence[EncodedSegment]) -> None:
        rows = [encoded for encoded in batch for _ in range(BEAM)]
        self._model, self._cache = model, prompt_cache(model, rows)
        room = model.config.canvas.buckets[-1]
        self._layers = [GrowingLayer(*pair, room) for pair in keys_values(self._cache)]
        self._cache.layers = list(self._layers)
        self.states = torch.stack([encoded.prompt_state for encoded in rows])
        """Each predicts the next token.  [rows, hidden]"""

    def select(self, rows: Array) -> None:
        """Go on from other texts, in each row from one of the same segment; [rows]"""
        chosen = upload(torch.from_numpy(rows), self._model.device)
        self.states = self.states[chosen]
        for layer in self._layers:
            layer.select(chosen)

    def append(self, ids: Tensor) -> None:
        """Say one token more in each row; [rows]"""
        embeddings = self._model.backbone.model.encoder.get_input_embeddings()(ids.unsqueeze(1))
        self.states = self._model.prefill(embeddings, self._cache)[0][:, -1]


class GrowingLayer(DynamicLayer):
    """A layer's keys and values, which grow in place: transformers' own are copied whole for every token.

    They begin with those of prompts, [rows, heads, prompt, head_dim], and have `room` for so many tokens more.
    """

    def __init__(self, keys: Tensor, values: Tensor, room: int) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self._prompt_tokens = keys.shape[2]
        self._buffers = [F.pad(own, (0, 0, 0, room)) for own in (keys, values)]
        self._show(self._prompt_tokens)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append keys and values; [rows, heads, tokens, head_dim]"""
        begin, end = self._num_tokens, self._num_tokens + key_states.shape[2]
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, begin:end] = new
        return self._show(end)

    def select(self, rows: Tensor) -> None:
        """Let each row continue what another one has behind the same prompt; [rows]"""
        grown = slice(self._prompt_tokens, self._num_tokens)
        for buffer in self._buffers:
            buffer[:, :, grown] = buffer[rows, :, grown]

    def _show(self, end: int) -> tuple[Tensor, Tensor]:
        self._num_tokens = end
        keys, values = (buffer[:, :, :end] for buffer in self._buffers)
        self.keys, self.values = keys, values
        return keys, values


class _Heard:
    """CTC's log-probabilities of all labels, where rows are as long as the longest."""

    def __init__(self, model: AsrModel, batch: Sequence[EncodedSegment]) -> None:
        everything = torch.arange(len(model.head_weight), device=model.device)
        read = fetch([label_log_probs(model, own.states, own.log_partition, everything) for own in batch])
        num_shifts = model.config.projector.subsampling
        self._tables = [own[:, 1:].reshape(-1, num_shifts, len(everything)) for own in read]

    def log_probs(self, labels: Array, *, behind: float) -> Array:
        """Look labels up, of several rows for each segment; natural logarithms.

        [rows, labels] → [rows, audio tokens, labels, shifts], with `behind` behind a row's audio.
        """
        num_tokens, num_shifts, _ = max(table.shape for table in self._tables)
        found = np.full((len(labels), num_tokens, labels.shape[1], num_shifts), behind, dtype=np.float32)
        num_rows = len(labels) // len(self._tables)
        for row, own in enumerate(labels):
            table = self._tables[row // num_rows]
            found[row, : len(table)] = table[:, :, own].transpose(0, 2, 1)
        return found


def _mean_of_views(log_likelihoods: Array) -> Array:
    return np.maximum(log_likelihoods, IMPOSSIBLE).mean(axis=-1)
