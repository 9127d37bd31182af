"""The decoder's text and CTC's of one segment in, the likelier one out.

A canvas position has to count the words before it, and where the decoder counts wrong it is sure of it: no step mends
that. CTC cannot count wrong, but recognises less where words run together. Where the two differ, the segment goes once
more through the backbone's causal encoder with either text behind it, and the text is taken whose likelihood there,
times its likelihood by CTC, is higher; where the model has a word list, other words cost. Everything was trained for
this already: two of the three losses are these two.
A model whose decoder is young may ask for a third text, the causal encoder's own, token after token.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from dgasr.alignment.ctc import min_frames
from dgasr.device import fetch, upload
from dgasr.diffusion import Canvas
from dgasr.model.asr import AsrModel
from dgasr.model.ctc_head import TextsToScore, text_log_likelihoods
from dgasr.model.head import label_logits, log_partition
from dgasr.prompt import PromptConfig
from dgasr.recipe import Recipe
from dgasr.transcriber.causal import joint_texts, unknown_words_cost
from dgasr.transcriber.encoding import ENCODED_AT_ONCE, CtcText, EncodedSegment, aligned_log_probs, prompt_cache

SORTED_BATCHES = 4
"""Batches of segments that wait for the causal encoder, to be sorted by length."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Choice:
    """A segment's text, and the one that was not taken.

    canvas: as it was denoised; what it was encoded to is gone once the choice has been made.
    ids: tokens of the text.
    probabilities: of each of them, by the decoder or, for CTC's text, by the causal encoder, in [0, 1].
    log_probs: of the blank and of each of them by CTC, natural logarithms.  [frames, 1 + tokens]
    alternative: the other text, CTC's before the choice.
    runner_up: where the causal encoder said a text, CTC's, or where that was likelier, the causal encoder's.
    is_canvas: the text is the decoder's, or CTC's where there was no third one: whether the canvas settled and held an
        end is then a reason to doubt it.
    causal_log_probs: of whole texts and their ends by the causal encoder, as far as they are known, nats.
    is_cut: no canvas held the text's end.
    is_refuted: the decoder's text cannot be all that was said: no canvas held its end, or CTC has too few frames.
    """

    canvas: Canvas
    ids: Sequence[int]
    probabilities: Sequence[float]
    log_probs: np.ndarray
    alternative: CtcText
    runner_up: tuple[int, ...] | None = None
    is_canvas: bool = True
    causal_log_probs: Mapping[tuple[int, ...], float] = field(default_factory=dict)
    is_cut: bool = False
    is_refuted: bool = False

    @property
    def doubted_by(self) -> tuple[int, ...]:
        """The text to compare with: one that was found otherwise, and by what can be relied on."""
        return self.alternative.ids if self.is_canvas or self.runner_up is None else self.runner_up

    @property
    def encoded(self) -> EncodedSegment:
        """The segment that both texts are of."""
        encoded: EncodedSegment = self.canvas.encoded
        return encoded

    def made(self) -> "Choice":
        """Let go of what the device holds of the segment, also for those who still have its canvas."""
        self.encoded.keys_values = []
        return replace(self, canvas=replace(self.canvas, encoded=None))


def read_out(model: AsrModel, encoded: Sequence[EncodedSegment], ids: Tensor) -> list[Tensor]:
    """Compute what `decoded` needs of segments whose canvases are done, with these tokens, on the device.

    [segments, canvas] → for each its `scores`, then CTC's log-probabilities of the blank and of all tokens, in a row.
    """
    return [
        torch.cat([own.scores, aligned_log_probs(model, own, row).flatten()])
        for own, row in zip(encoded, ids, strict=True)
    ]


def decoded(canvas: Canvas) -> Choice:
    """Take the decoder's text, before there is a choice."""
    encoded, tokens, found = canvas.encoded, canvas.num_tokens, canvas.read_out
    assert found is not None
    scores, log_probs = found[: len(encoded.scores)], found[len(encoded.scores) :]
    return Choice(
        canvas=canvas,
        ids=canvas.ids[:tokens].tolist(),
        probabilities=np.exp(canvas.log_probabilities[:tokens]).tolist(),
        log_probs=log_probs.reshape(encoded.num_frames, -1)[:, : 1 + tokens].copy(),
        alternative=encoded.likeliest(scores),
        is_cut=canvas.is_overflowed,
    )


def _beside_decoder(choice: Choice) -> Choice:
    """Put what has been chosen so far beside the decoder's text."""
    text = replace(choice.alternative, ids=tuple(choice.ids), probabilities=tuple(choice.probabilities))
    canvas = decoded(choice.canvas)
    return replace(
        canvas, alternative=text, causal_log_probs=choice.causal_log_probs, runner_up=choice.alternative.ids,
        is_canvas=tuple(canvas.ids) != text.ids,
    )  # fmt: skip


class Rescorer:
    """Chooses between the texts of segments, in batches of fixed shapes.

    Args:
        model: in evaluation mode.
        recipe: of this model; says whether there is anything to choose.
        num_rows: rows of every batch, or `ENCODED_AT_ONCE` if that is fewer; missing ones are filled up, so that shapes
            never change.
        is_live: hold nothing back for the causal encoder's batches either, which have the model's `rows_at_once`.
    """

    def __init__(self, model: AsrModel, recipe: Recipe, num_rows: int, *, is_live: bool = False) -> None:
        self._model, self._recipe, self._num_rows = model, recipe, min(num_rows, ENCODED_AT_ONCE)
        self._said_rows = model.rows_at_once or self._num_rows
        self._num_sorted = 1 if is_live else SORTED_BATCHES * self._said_rows

    def choose(self, canvases: Iterable[Canvas]) -> Iterator[Choice]:
        """Choose, a text for each, holding back at most a batch of segments whose texts differ; as they are chosen.

        Canvases are denoised and read out; what they were encoded to are `EncodedSegment`.
        """
        if self._model.config.reads_causally and self._recipe.rescore == "joint":
            read = self._settle(self._read_causally(canvases), lambda choice: choice)
            yield from self._settle(map(_beside_decoder, read), Choice.made)
        else:
            yield from self._settle(map(decoded, canvases), Choice.made)

    def _read_causally(self, canvases: Iterable[Canvas]) -> Iterator[Choice]:
        """Let the causal encoder say texts with CTC's help, token after token; CTC's own are the alternatives."""
        waiting: list[Choice] = []
        for choice in map(decoded, canvases):
            choice.encoded.keep_prompt()  # another segment may enter the row before there are enough
            waiting.append(choice)
            del choice  # or its prompt would be held while the next ones are decoded
            if len(waiting) == self._num_sorted:
                yield from self._all_said(waiting)
        yield from self._all_said(waiting)

    def _all_said(self, waiting: list[Choice]) -> Iterator[Choice]:
        """Say texts of about one length together, since a batch takes as long as its longest."""
        waiting.sort(key=lambda choice: len(choice.alternative.ids))
        while waiting:
            batch = waiting[: self._said_rows]
            del waiting[: self._said_rows]
            yield from self._said(batch)

    def _said(self, choices: list[Choice]) -> list[Choice]:
        """Put what the causal encoder says in place of the decoder's texts."""
        batch = [choice.encoded for choice in choices]
        texts = joint_texts(self._model, [*batch, *[batch[-1]] * (self._said_rows - len(batch))])[: len(batch)]
        log_probs = fetch(
            [
                aligned_log_probs(self._model, encoded, upload(torch.tensor(ids).long(), self._model.device))
                for encoded, (ids, *_) in zip(batch, texts, strict=True)
            ]
        )
        return [
            replace(
                choice, ids=text.ids, probabilities=text.probabilities, log_probs=own,
                causal_log_probs={tuple(text.ids): text.log_prob},
                is_cut=len(text.ids) == self._model.config.canvas.buckets[-1],
            )
            for choice, text, own in zip(choices, texts, log_probs, strict=True)
        ]  # fmt: skip

    def _settle(self, choices: Iterable[Choice], finish: Callable[[Choice], Choice]) -> Iterator[Choice]:
        """Take the likelier text of each choice; `finish` is done to all that leave together, before the first does."""
        waiting: dict[int, list[Choice]] = defaultdict(list)

        def scored(length: int) -> list[Choice]:
            return list(map(finish, self._rescore(waiting.pop(length), length)))

        for choice in map(self._refuted, choices):
            length = self._scored_tokens(choice)
            if length is None:
                yield finish(choice)
                continue
            choice.encoded.keep_prompt()  # another segment may enter the row before there are enough to score
            waiting[length].append(choice)
            del choice  # or its prompt would be held while the next ones are decoded
            if sum(map(len, waiting.values())) == self._num_rows:
                yield from scored(max(waiting, key=lambda tokens: len(waiting[tokens])))
        for length in [*waiting]:
            yield from scored(length)

    def _refuted(self, choice: Choice) -> Choice:
        """Give up the decoder's text where it cannot be all that was said and CTC's can; it is then not scored."""
        is_whole = not choice.is_cut and self._may_be_said(choice, choice.ids)
        if self._recipe.rescore == "none" or is_whole or self._scored_tokens(replace(choice, ids=())) is None:
            return choice
        return replace(choice, ids=(), is_refuted=True)

    def _may_be_said(self, choice: Choice, text: Sequence[int]) -> bool:
        """Tell whether CTC has frames enough for a text."""
        return min_frames(text) <= len(choice.encoded.states) // self._model.config.projector.subsampling

    def _scored_tokens(self, choice: Choice) -> int | None:
        """The canvas length that holds both texts and their end; `None` where there is nothing to choose."""
        texts = choice.ids, choice.alternative.ids
        if (
            self._recipe.rescore == "none"
            or tuple(choice.ids) == choice.alternative.ids
            or (choice.is_cut and choice.ids)
            or not all(self._may_be_said(choice, text) for text in texts)
        ):
            return None
        return self._model.config.canvas.bucket_holding(max(map(len, texts)) + 1)

    def _rescore(self, choices: Sequence[Choice], num_tokens: int) -> list[Choice]:
        model = self._model
        batch = [choice.encoded for choice in [*choices, *[choices[-1]] * (self._num_rows - len(choices))]]
        pairs = [(tuple(choice.ids), choice.alternative.ids) for choice in choices]
        by_ctc, missing = _ctc_log_likelihoods(model, choices)
        log_probs = [
            aligned_log_probs(model, choice.encoded, upload(torch.tensor(choice.alternative.ids).long(), model.device))
            for choice in choices
        ]
        asked = [
            which for which in (0, 1)
            if any(pair[which] not in choice.causal_log_probs for choice, pair in zip(choices, pairs, strict=True))
        ]  # fmt: skip
        texts = [[pair[which] for pair in pairs] for which in asked]
        causal = causal_log_probs(model, self._recipe, batch, texts, num_tokens) if texts else []
        scores, *read = fetch([torch.cat([*missing]), *log_probs, *causal])
        new, found = iter(scores.tolist()), dict(zip(asked, read[len(choices) :], strict=True))
        made = []
        for index, (choice, pair) in enumerate(zip(choices, pairs, strict=True)):
            known = {
                **{pair[which]: float(own[index, : len(pair[which]) + 1].sum()) for which, own in found.items()},
                **choice.causal_log_probs,  # the same, whatever is scored in the batch
            }
            ctc = [next(new) if likelihood is None else likelihood for likelihood in by_ctc[index]]
            likelihoods = [
                known[text] + by_ctc_alone - unknown_words_cost(model, text)
                for text, by_ctc_alone in zip(pair, ctc, strict=True)
            ]
            if choice.is_refuted or likelihoods[1] > likelihoods[0]:
                is_new = pair[1] not in choice.causal_log_probs
                choice = Choice(
                    canvas=choice.canvas, ids=pair[1], log_probs=read[index],
                    probabilities=(
                        np.exp(found[1][index, : len(pair[1])]).tolist() if is_new else choice.alternative.probabilities
                    ),
                    alternative=replace(choice.alternative, ids=pair[0]),
                    runner_up=choice.runner_up, is_canvas=choice.runner_up is None,
                )  # fmt: skip
            made.append(replace(choice, causal_log_probs=known))
        return made


def _ctc_log_likelihoods(
    model: AsrModel, choices: Sequence[Choice]
) -> tuple[list[tuple[float | None, float | None]], list[Tensor]]:
    """Look up how likely CTC finds the two texts of each choice, and score those that were not when they were read."""
    known = [
        (likelihoods.get(tuple(choice.ids)), likelihoods.get(choice.alternative.ids))
        for choice in choices
        for likelihoods in (choice.alternative.log_likelihoods,)
    ]
    asked = [
        TextsToScore(
            choice.encoded.states,
            choice.encoded.log_partition,
            [text for text, score in zip((choice.ids, choice.alternative.ids), scores, strict=True) if score is None],
        )
        for choice, scores in zip(choices, known, strict=True)
    ]
    return known, text_log_likelihoods(model, asked)


@torch.no_grad()
def causal_log_probs(
    model: AsrModel,
    recipe: Recipe,
    batch: Sequence[EncodedSegment],
    texts: Sequence[Sequence[Sequence[int]]],
    num_tokens: int,
) -> list[Tensor]:
    """Compute how likely the backbone's causal encoder finds each token of texts after those before it.

    Args:
        model: in evaluation mode.
        recipe: of this model.
        batch: segments; those beyond the texts fill the batch up.
        texts: ids without the end; lists of one text for each of the first segments, a pass for each list.
        num_tokens: what every text with its end is filled up to, tokens.

    Returns:
        For each list natural logarithms, on the device: of a text's tokens and its end, then of what fills it up.
        [segments, tokens] each
    """
    cache = prompt_cache(model, batch)
    cache.activate_past_recording()  # or what a text pushes out of the sliding window would be gone
    first = torch.stack([encoded.prompt_state for encoded in batch]).unsqueeze(1)
    found = []
    for row_texts in texts:
        ids = upload(_filled_up(row_texts, len(batch), num_tokens, model.config.prompt), model.device)
        embeddings = model.backbone.model.encoder.get_input_embeddings()(ids[:, :-1])
        states = torch.cat([first, model.prefill(embeddings, cache)[0]], dim=1)
        cache.crop(1 - num_tokens)  # back to the prompts
        found.append(_log_probs(model, states, ids, recipe.decode.vocabulary_chunk))
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
