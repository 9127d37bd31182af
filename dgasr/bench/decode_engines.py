"""Two ways from waveforms to decoded canvases, timed by phase: this project's, and transformers' `generate`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dgasr.bench.stopwatch import Stopwatch
from dgasr.diffusion import rows
from dgasr.diffusion.canvas import CanvasJob
from dgasr.diffusion.config import DecodeConfig
from dgasr.diffusion.denoise import denoise
from dgasr.diffusion.noise import segment_key
from dgasr.diffusion.vocabulary_tail import VocabularyHead
from dgasr.features import FeatureConfig, pad_features, segment_features
from dgasr.model.asr import AsrModel
from dgasr.prompt import build_prompt
from dgasr.recipe import Recipe
from dgasr.records import Segment, SegmentFeatures
from dgasr.transcriber import encoding
from dgasr.transcriber.decoder import CachedDecoder
from dgasr.transcriber.encoding import SegmentEncoder

Segments = Sequence[tuple[Segment, np.ndarray]]

NEVER_CONFIDENT = 1e-30
"""Nats; `generate` refuses 0."""

PHASES = ("mel", "encoder", "projector", "ctc", "hearing", "prefill", "admit", "body", "tail", "sampler and rest")


def decode_ours(model: AsrModel, recipe: Recipe, segments: Segments, batch_size: int, canvas: int) -> int:
    """Decode segments as `Transcriber` does, with every canvas of one size, up to the finished canvases.

    Returns:
        How many canvases came out.
    """
    head = VocabularyHead(weight=model.head_weight, softcap=model.config.softcap, embed_scale=model.embed_scale)
    features = _features(segments, recipe.features)
    jobs = (
        CanvasJob(
            noise_key=segment_key(encoded.features.segment.recording_id, 0), canvas_tokens=canvas, payload=encoded
        )
        for encoded in SegmentEncoder(model, recipe, batch_size).encode(features)
    )
    canvases = denoise(
        CachedDecoder(model, batch_size, canvas), head, jobs, num_rows=batch_size, buckets=(canvas,),
        end_token_ids=model.config.prompt.end_text_ids, config=recipe.decode,
    )  # fmt: skip
    return sum(1 for _ in canvases)


@torch.no_grad()
def decode_by_transformers(model: AsrModel, recipe: Recipe, segments: Segments, batch_size: int, canvas: int) -> int:
    """Decode the same segments by transformers' `generate`, as the reference system does.

    The audio goes through mel, encoder and projector; `generate` takes ids only, so its prompt has the ids of the audio
    slots where the reference has their embeddings: other values, the same work.

    Returns:
        How many canvases came out.
    """
    backbone: Any = model.backbone
    backbone.config.canvas_length = canvas
    prompt = build_prompt(model.tokenizer, model.config.prompt, model.config.num_audio_tokens, recipe.language)
    ids = torch.tensor(prompt.ids, device=model.device)
    decode, done = recipe.decode, 0
    from transformers.models.diffusion_gemma.generation_diffusion_gemma import EntropyBoundSamplerConfig

    for start in range(0, len(segments), batch_size):
        batch = list(_features(segments[start : start + batch_size], recipe.features))
        log_mel = torch.from_numpy(pad_features(batch, recipe.features)).to(model.device)
        model.projector(model.encode_audio(log_mel))
        generated = backbone.generate(
            ids.expand(len(batch), -1), max_new_tokens=canvas, max_denoising_steps=decode.max_steps, t_min=decode.t_min,
            t_max=decode.t_max, stability_threshold=1, confidence_threshold=NEVER_CONFIDENT,
            sampler_config=EntropyBoundSamplerConfig(entropy_bound=decode.entropy_bound), pad_token_id=0,
            eos_token_id=list(model.config.prompt.end_text_ids),
        )  # fmt: skip
        done += len(getattr(generated, "sequences", generated))
    return done


ENGINES: dict[str, Callable[[AsrModel, Recipe, Segments, int, int], int]] = {
    "ours": decode_ours,
    "transformers": decode_by_transformers,
}


@contextmanager
def phases_of(model: AsrModel, watch: Stopwatch) -> Iterator[None]:
    """Count the time of the parts of a decoding, whichever engine runs them, while the context lasts."""
    from dgasr.bench import decode_engines as engines

    places: list[tuple[Any, str, str]] = [
        (engines, "segment_features", "mel"),
        (model, "encode_audio", "encoder"),
        (SegmentEncoder, "_project", "projector"),
        (SegmentEncoder, "_refine", "projector"),
        (SegmentEncoder, "_scan", "ctc"),
        (encoding, "hear", "hearing"),
        (model, "prefill", "prefill"),
        (CachedDecoder, "admit", "admit"),
        (model, "decode", "body"),
        (rows, "read_vocabulary", "tail"),
    ]
    before = [(owner, name, owner.__dict__.get(name)) for owner, name, _ in places]
    for owner, name, phase in places:
        setattr(owner, name, watch.timed(phase, getattr(owner, name)))
    try:
        yield
    finally:
        for owner, name, plain in before:
            if plain is None:
                delattr(owner, name)
            else:
                setattr(owner, name, plain)


@contextmanager
def tokens_per_expert(model: AsrModel, counts: list[Tensor]) -> Iterator[None]:
    """Collect how many tokens each expert of each decoder layer gets, call by call."""

    def count(router: Any, _: Any, output: tuple[Tensor, Tensor, Tensor]) -> None:
        counts.append(torch.bincount(output[2].flatten(), minlength=router.config.num_experts))

    layers: Any = model.backbone.model.decoder.layers
    handles = [layer.router.register_forward_hook(count) for layer in layers]
    try:
        # A compiled decoder was traced without the hooks, and would not call them.
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for handle in handles:
            handle.remove()


def fixed_steps(recipe: Recipe, steps: int) -> DecodeConfig:
    """Give settings under which every canvas takes all its steps: random weights never settle, trained ones do."""
    return replace(recipe.decode, max_steps=steps, confidence_threshold=0.0)


def _features(segments: Segments, config: FeatureConfig) -> Iterator[SegmentFeatures]:
    for segment, waveform in segments:
        yield segment_features(segment, waveform, config)
