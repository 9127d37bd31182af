"""Decoded token ids in, a segment's transcript out: text, word times, confidence, flags.

Also the model's two other ways to text, which diffusion is compared with: CTC alone, and token after token. They take
what `Transcriber.transcribe` takes and give what it gives.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch

from dgasr.alignment.flags import flag_segment
from dgasr.alignment.words import WordTokens, align_words, loudness, segment_confidence
from dgasr.device import fetch, upload
from dgasr.model.asr import AsrModel
from dgasr.prompt import Tokenizer
from dgasr.recipe import Recipe
from dgasr.records import SegmentFeatures, SegmentTranscript
from dgasr.transcriber.causal import greedy_texts
from dgasr.transcriber.encoding import EncodedSegment, SegmentEncoder, aligned_log_probs


def read_transcript(
    tokenizer: Tokenizer,
    recipe: Recipe,
    features: SegmentFeatures,
    ids: Sequence[int],
    probabilities: Sequence[float],
    log_probs: np.ndarray,
    *,
    alternative_ids: Sequence[int],
    num_steps: int = 0,
    canvas_tokens: int = 0,
    is_settled: bool = True,
    is_overflow: bool = False,
    has_blank: bool = True,
) -> SegmentTranscript:
    """Turn a segment's tokens into a transcript. Everything is on the host: no device is asked for anything.

    Args:
        tokenizer: of the model.
        recipe: of the model.
        features: the segment.
        ids: tokens of the text, without the end of text.
        probabilities: what the model gives each of them, in [0, 1].
        log_probs: of the blank and of each of them by CTC, natural logarithms.  [frames, 1 + tokens]
        alternative_ids: tokens of the text that it was preferred to; CTC's if nothing was chosen.
        num_steps: decoder calls spent.
        canvas_tokens: length of the canvas that held the text.
        is_settled: the canvas had stopped changing.
        is_overflow: the largest canvas held no end of text.
        has_blank: CTC's log-probabilities mean something; else words are spread evenly, and the first column of
            `log_probs` says how sure an empty text is.
    """
    ids, segment = list(ids), features.segment
    tokens = [WordTokens(word, start, end, min(probabilities[start:end])) for word, start, end in tokenizer.words(ids)]
    sound = loudness(features.log_mel, recipe.features.hop_samples)
    words, timing_source = align_words(tokens, ids, log_probs, sound, segment, recipe.alignment, has_blank=has_blank)
    confidence = segment_confidence(words, log_probs[:, 0])
    flags = flag_segment(
        words, [word for word, _, _ in tokenizer.words(list(alternative_ids))], confidence,
        is_settled=is_settled, is_overflow=is_overflow, config=recipe.alignment,
    )  # fmt: skip
    return SegmentTranscript(
        segment=segment, text=tokenizer.decode(ids), language=recipe.language, words=words,
        timing_source=timing_source, confidence=confidence, flags=flags, num_steps=num_steps,
        canvas_tokens=canvas_tokens,
    )  # fmt: skip


def _read(
    model: AsrModel,
    recipe: Recipe,
    encoded: EncodedSegment,
    ids: Sequence[int],
    probabilities: Sequence[float],
    num_steps: int,
) -> SegmentTranscript:
    """Read a text that nothing was chosen against."""
    labels = upload(torch.tensor(ids, dtype=torch.int64), model.device)
    (log_probs,) = fetch([aligned_log_probs(model, encoded, labels)])
    return read_transcript(
        model.tokenizer, recipe, encoded.features, ids, probabilities, log_probs, alternative_ids=encoded.ctc.ids,
        num_steps=num_steps, has_blank=model.config.has_blank,
    )  # fmt: skip


def transcribe_by_ctc(
    model: AsrModel, recipe: Recipe, batch_size: int, features: Iterable[SegmentFeatures]
) -> Iterator[SegmentTranscript]:
    """Read the likeliest CTC labels of the audio embeddings, without the backbone's layers."""
    for encoded in SegmentEncoder(model, recipe, batch_size).encode(features):
        ids = encoded.ctc.ids
        yield _read(model, recipe, encoded, ids, [1.0] * len(ids), num_steps=0)


def transcribe_autoregressively(
    model: AsrModel, recipe: Recipe, batch_size: int, features: Iterable[SegmentFeatures]
) -> Iterator[SegmentTranscript]:
    """Take the likeliest next token through the backbone's causal encoder until the text ends."""
    source = SegmentEncoder(model, recipe, batch_size).encode(features)
    while batch := list(islice(source, batch_size)):
        for encoded, (ids, probabilities) in zip(batch, greedy_texts(model, recipe, batch), strict=True):
            yield _read(model, recipe, encoded, ids, probabilities, num_steps=len(ids) + 1)
