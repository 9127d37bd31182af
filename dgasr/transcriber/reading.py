"""Decoded token ids in, a segment's transcript out: text, word times, confidence, flags.

Also the model's two other ways to text, which diffusion is compared with: CTC alone, and token after token. They take
what `Transcriber.transcribe` takes and give what it gives.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import torch

from dgasr.alignment.flags import flag_segment
from dgasr.alignment.words import WordTokens, align_words, loudness, segment_confidence
from dgasr.model.asr import AsrModel
from dgasr.model.ctc_head import label_log_probs
from dgasr.model.head import greedy
from dgasr.recipe import Recipe
from dgasr.records import SegmentFeatures, SegmentTranscript
from dgasr.transcriber.encoding import EncodedSegment, SegmentEncoder, prompt_cache


@torch.no_grad()
def read_transcript(
    model: AsrModel,
    recipe: Recipe,
    encoded: EncodedSegment,
    ids: Sequence[int],
    probabilities: Sequence[float],
    *,
    alternative_ids: Sequence[int] | None = None,
    num_steps: int = 0,
    canvas_tokens: int = 0,
    is_settled: bool = True,
    is_overflow: bool = False,
) -> SegmentTranscript:
    """Turn a segment's tokens into a transcript.

    Args:
        model: gives vocabulary and language head.
        recipe: of this model.
        encoded: the segment.
        ids: tokens of the text, without the end of text.
        probabilities: what the model gives each of them, in [0, 1].
        alternative_ids: tokens of the text that it was preferred to; CTC's if nothing was chosen.
        num_steps: decoder calls spent.
        canvas_tokens: length of the canvas that held the text.
        is_settled: the canvas had stopped changing.
        is_overflow: the largest canvas held no end of text.
    """
    ids, alternative_ids = list(ids), list(encoded.ctc.ids if alternative_ids is None else alternative_ids)
    segment, tokenizer = encoded.features.segment, model.tokenizer
    tokens = [WordTokens(word, start, end, min(probabilities[start:end])) for word, start, end in tokenizer.words(ids)]
    log_probs = label_log_probs(
        model, encoded.states[: encoded.num_frames], encoded.log_partition[: encoded.num_frames], ids
    )
    sound = loudness(encoded.features.log_mel, recipe.features.hop_samples)
    words, timing_source = align_words(tokens, ids, log_probs, sound, segment, recipe.alignment)
    confidence = segment_confidence(words, log_probs[:, 0])
    flags = flag_segment(
        words, [word for word, _, _ in tokenizer.words(alternative_ids)], confidence,
        is_settled=is_settled, is_overflow=is_overflow, config=recipe.alignment,
    )  # fmt: skip
    return SegmentTranscript(
        segment=segment, text=tokenizer.decode(ids), language=recipe.language, words=words,
        timing_source=timing_source, confidence=confidence, flags=flags, num_steps=num_steps,
        canvas_tokens=canvas_tokens,
    )  # fmt: skip


def transcribe_by_ctc(
    model: AsrModel, recipe: Recipe, batch_size: int, features: Iterable[SegmentFeatures]
) -> Iterator[SegmentTranscript]:
    """Read the likeliest CTC labels of the audio embeddings, without the backbone's layers."""
    for encoded in SegmentEncoder(model, recipe, batch_size).encode(features):
        ids = encoded.ctc.ids
        yield read_transcript(model, recipe, encoded, ids, [1.0] * len(ids))


def transcribe_autoregressively(
    model: AsrModel, recipe: Recipe, batch_size: int, features: Iterable[SegmentFeatures]
) -> Iterator[SegmentTranscript]:
    """Take the likeliest next token through the backbone's causal encoder until the text ends."""
    source = SegmentEncoder(model, recipe, batch_size).encode(features)
    while batch := list(islice(source, batch_size)):
        for encoded, (ids, probabilities) in zip(batch, _greedy_texts(model, recipe, batch), strict=True):
            yield read_transcript(model, recipe, encoded, ids, probabilities, num_steps=len(ids) + 1)


@torch.no_grad()
def _greedy_texts(
    model: AsrModel, recipe: Recipe, batch: Sequence[EncodedSegment]
) -> list[tuple[list[int], list[float]]]:
    cache = prompt_cache(model, batch)
    states = torch.stack([encoded.prompt_state for encoded in batch])  # [batch, hidden]
    texts: list[tuple[list[int], list[float]]] = [([], []) for _ in batch]
    unfinished = set(range(len(batch)))
    for _ in range(model.config.canvas.buckets[-1]):
        ids, log_probs = greedy(states, model.head_weight, model.config.softcap, recipe.decode.vocabulary_chunk)
        for row in sorted(unfinished):
            token = int(ids[row])
            if token in model.config.prompt.end_text_ids:
                unfinished.discard(row)
            else:
                texts[row][0].append(token)
                texts[row][1].append(float(log_probs[row].exp()))
        if not unfinished:
            break
        embeddings = model.backbone.model.encoder.get_input_embeddings()(ids.unsqueeze(1))
        states = model.prefill(embeddings, cache)[0][:, -1]
    return texts
