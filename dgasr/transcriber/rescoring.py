"""The decoder's text and CTC's of one segment in, the likelier one out.

A canvas position has to count the words before it, and where the decoder counts wrong it is sure of it: no step mends
that. CTC cannot count wrong, but recognises less where words run together. Where the two differ, the segment goes once
more through the backbone's causal encoder with either text behind it, and the text is taken whose likelihood there,
times its likelihood by CTC, is higher. Everything was trained for this already: two of the three losses are these two.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dgasr.alignment.ctc import min_frames
from dgasr.diffusion.canvas import Canvas
from dgasr.model.asr import AsrModel
from dgasr.model.ctc_head import TextsToScore, text_log_likelihoods
from dgasr.model.head import label_logits, log_partition
from dgasr.prompt import PromptConfig
from dgasr.recipe import Recipe
from dgasr.transcriber.encoding import ENCODED_AT_ONCE, EncodedSegment, prompt_cache


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Choice:
    """A segment's text, and the one that was not taken.

    canvas: as it was denoised.
    ids: tokens of the text.
    probabilities: of each of them, by the decoder or, for CTC's text, by the causal encoder, in [0, 1].
    alternative_ids: tokens of the other text.
    """

    canvas: Canvas
    ids: Sequence[int]
    probabilities: Sequence[float]
    alternative_ids: Sequence[int]

    @property
    def encoded(self) -> EncodedSegment:
        """The segment that both texts are of."""
        return self.canvas.job.payload


class Rescorer:
    """Chooses between the texts of segments, in batches of fixed shapes.

    Args:
        model: in evaluation mode.
        recipe: of this model; says whether there is anything to choose.
        num_rows: rows of every batch, or `ENCODED_AT_ONCE` if that is fewer; missing ones are filled up, so that shapes
            never change.
    """

    def __init__(self, model: AsrModel, recipe: Recipe, num_rows: int) -> None:
        self._model, self._recipe, self._num_rows = model, recipe, min(num_rows, ENCODED_AT_ONCE)

    def choose(self, canvases: Iterable[Canvas]) -> Iterator[Choice]:
        """Choose, holding back at most a batch of segments whose texts differ.

        Args:
            canvases: denoised; their payloads are `EncodedSegment`.

        Yields:
            One choice for each, in the order in which they are made.
        """
        waiting: dict[int, list[Choice]] = defaultdict(list)
        for canvas in canvases:
            choice = _decoded(canvas)
            length = self._scored_tokens(choice)
            if length is None:
                yield choice
                continue
            waiting[length].append(choice)
            if sum(map(len, waiting.values())) == self._num_rows:
                fullest = max(waiting, key=lambda tokens: len(waiting[tokens]))
                yield from self._rescore(waiting.pop(fullest), fullest)
        for length, choices in waiting.items():
            yield from self._rescore(choices, length)

    def _scored_tokens(self, choice: Choice) -> int | None:
        """The canvas length that holds both texts and their end; `None` where there is nothing to choose."""
        texts, config = (choice.ids, choice.alternative_ids), self._model.config
        embeddings = len(choice.encoded.states) // config.projector.subsampling
        if (
            self._recipe.rescore == "none"
            or tuple(choice.ids) == tuple(choice.alternative_ids)
            or choice.canvas.is_overflowed
            or any(min_frames(text) > embeddings for text in texts)  # CTC could not say it, whatever was spoken
        ):
            return None
        return config.canvas.bucket_holding(max(len(text) for text in texts) + 1)

    def _rescore(self, choices: Sequence[Choice], num_tokens: int) -> Iterator[Choice]:
        batch = [choice.encoded for choice in [*choices, *[choices[-1]] * (self._num_rows - len(choices))]]
        texts = [choice.ids for choice in choices], [choice.alternative_ids for choice in choices]
        decoded, by_label = causal_log_probs(self._model, self._recipe, batch, texts, num_tokens)
        by_ctc = _ctc_log_likelihoods(self._model, choices)
        for choice, ours, theirs, (ctc_ours, ctc_theirs) in zip(choices, decoded, by_label, by_ctc, strict=True):
            if sum(theirs) + ctc_theirs > sum(ours) + ctc_ours:
                probabilities = torch.tensor(theirs[:-1]).exp().tolist()
                yield replace(
                    choice, ids=choice.alternative_ids, probabilities=probabilities, alternative_ids=choice.ids
                )
            else:
                yield choice


def _ctc_log_likelihoods(model: AsrModel, choices: Sequence[Choice]) -> list[tuple[float, float]]:
    """Score the two texts of each choice, those excepted that were scored when they were read."""
    texts = [(tuple(choice.ids), tuple(choice.alternative_ids)) for choice in choices]
    known = [choice.encoded.ctc.log_likelihoods for choice in choices]
    missing = [[text for text in pair if text not in scored] for pair, scored in zip(texts, known, strict=True)]
    segments = [choice.encoded for choice in choices]
    found = text_log_likelihoods(
        model,
        [TextsToScore(own.states, own.log_partition, asked) for own, asked in zip(segments, missing, strict=True)],
    )
    likelihoods = [
        {**scored, **dict(zip(asked, new, strict=True))}
        for scored, asked, new in zip(known, missing, found, strict=True)
    ]
    return [(own[ours], own[theirs]) for own, (ours, theirs) in zip(likelihoods, texts, strict=True)]


@torch.no_grad()
def causal_log_probs(
    model: AsrModel,
    recipe: Recipe,
    batch: Sequence[EncodedSegment],
    texts: Sequence[Sequence[Sequence[int]]],
    num_tokens: int,
) -> list[list[list[float]]]:
    """Compute how likely the backbone's causal encoder finds each token of texts after those before it.

    Args:
        model: in evaluation mode.
        recipe: of this model.
        batch: segments; those beyond the texts fill the batch up.
        texts: ids without the end; lists of one text for each of the first segments, a pass for each list.
        num_tokens: what every text with its end is filled up to, tokens.

    Returns:
        For each text of each list natural logarithms: of its tokens, and of its end.
    """
    cache = prompt_cache(model, batch)
    cache.activate_past_recording()  # or what a text pushes out of the sliding window would be gone
    first = torch.stack([encoded.prompt_state for encoded in batch]).unsqueeze(1)
    found = []
    for row_texts in texts:
        ids = _filled_up(row_texts, len(batch), num_tokens, model.config.prompt).to(model.device)
        embeddings = model.backbone.model.encoder.get_input_embeddings()(ids[:, :-1])
        states = torch.cat([first, model.prefill(embeddings, cache)[0]], dim=1)
        cache.crop(1 - num_tokens)  # back to the prompts
        log_probs = _log_probs(model, states, ids, recipe.decode.vocabulary_chunk).tolist()
        found.append([row[: len(text) + 1] for row, text in zip(log_probs, row_texts, strict=False)])
    return found


def _filled_up(texts: Sequence[Sequence[int]], num_rows: int, num_tokens: int, prompt: PromptConfig) -> Tensor:
    """Lay out texts with their ends, pads after them and in the rows beyond them.  [rows, tokens]"""
    ids = torch.full((num_rows, num_tokens), prompt.pad_id)
    for row, text in enumerate(texts):
        ids[row, : len(text) + 1] = torch.tensor([*text, prompt.end_text_ids[0]])
    return ids


def _log_probs(model: AsrModel, states: Tensor, ids: Tensor, chunk: int) -> Tensor:
    """Read one id off each state; [rows, tokens, hidden], [rows, tokens] → [rows, tokens]."""
    weight, softcap = model.head_weight, model.config.softcap
    logits = label_logits(states.unsqueeze(-2), weight, ids.unsqueeze(-1), softcap).flatten(-3)
    return logits - log_partition(states, weight, softcap, chunk)


def _decoded(canvas: Canvas) -> Choice:
    text = slice(canvas.num_tokens)
    return Choice(
        canvas=canvas,
        ids=canvas.ids[text].tolist(),
        probabilities=canvas.log_probabilities[text].exp().tolist(),
        alternative_ids=canvas.job.payload.ctc.ids,
    )
