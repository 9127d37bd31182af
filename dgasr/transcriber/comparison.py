"""The model's two other ways to text, to compare the diffusion decoder with: CTC alone, and token after token.

Both take what `Transcriber.transcribe` takes and give what it gives.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import torch

from dgasr.model.asr import AsrModel
from dgasr.model.head import greedy
from dgasr.recipe import Recipe
from dgasr.records import SegmentFeatures, SegmentTranscript
from dgasr.transcriber.encoding import EncodedSegment, SegmentEncoder, prompt_cache
from dgasr.transcriber.reading import read_transcript


def transcribe_by_ctc(
    model: AsrModel, recipe: Recipe, batch_size: int, features: Iterable[SegmentFeatures]
) -> Iterator[SegmentTranscript]:
    """Read the likeliest CTC labels of the audio embeddings, without the backbone's layers."""
    for encoded in SegmentEncoder(model, recipe, batch_size).encode(features):
        ids = encoded.hearing.ids
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
