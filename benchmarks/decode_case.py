"""One engine on clips of one length: its speed, where time goes, how many clips fit the memory at once.

Engines: `ours`, from waveforms to transcripts, and transformers' `generate`, to token ids.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks.bound import window_work
from benchmarks.decode_model import RANDOM_DIGEST, noise_segments
from benchmarks.machine import Rates, Stopwatch, busy_share
from dgasr.diffusion import Canvas, sampler
from dgasr.features import FeatureConfig, pad_features, segment_features
from dgasr.model.asr import AsrModel
from dgasr.prompt import build_prompt
from dgasr.recipe import Recipe, build_recipe
from dgasr.records import Segment, SegmentFeatures, seconds
from dgasr.transcriber import Transcriber, encoding
from dgasr.transcriber import segments as composition
from dgasr.transcriber.encoding import SegmentEncoder
from dgasr.transcriber.loading import is_out_of_memory, release_memory
from dgasr.transcriber.rescoring import Rescorer
from dgasr.transcriber.segments import CachedDecoder

Segments = Sequence[tuple[Segment, np.ndarray]]

NEVER_CONFIDENT = 1e-30
"""Nats; `generate` refuses 0."""

PHASES = (
    "mel", "encoder", "projector", "ctc", "ctc text", "prefill", "admit", "body", "tail", "read out", "rescore", "read",
    "sampler and rest",
)  # fmt: skip

IN_A_STEP = ("admit", "body", "tail", "sampler and rest")

TOKENS_PER_S = 3.3
"""Text that random weights are taken to have said, so that it is scored and read: English has 100 tokens in 30 s."""


class WholePath(Transcriber):
    """The product's own path, from features to transcripts; of random weights every canvas holds a text."""

    is_random = False

    def _denoise(self, features: Iterator[SegmentFeatures | None]) -> Iterator[Canvas]:
        for canvas in super()._denoise(features):
            said = round(TOKENS_PER_S * seconds(canvas.job.payload.segment.num_samples))
            num_tokens = min(max(said, 1), canvas.job.canvas_tokens - 1)
            yield replace(canvas, num_tokens=num_tokens, is_overflowed=False) if self.is_random else canvas


def decode_ours(model: AsrModel, recipe: Recipe, segments: Segments, batch_size: int, canvas: int) -> int:
    """Transcribe segments as the product does: CTC, rescoring and reading included; every canvas has one size.

    Returns:
        How many transcripts came out.
    """
    config = model.config
    model.config = replace(config, canvas=replace(config.canvas, buckets=(canvas,)))
    path = WholePath(model, recipe, batch_size)
    path.is_random = model.identity.digest == RANDOM_DIGEST
    try:
        return sum(1 for _ in path.transcribe(_features(segments, recipe.features)))
    finally:
        model.config = config


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
    ids = torch.tensor(prompt, device=model.device)
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
    places: list[tuple[Any, str, str]] = [
        (sys.modules[__name__], "segment_features", "mel"),
        (model, "encode_audio", "encoder"),
        (SegmentEncoder, "_project", "projector"),
        (SegmentEncoder, "_refine", "projector"),
        (SegmentEncoder, "_scan", "ctc"),
        (encoding, "read_ctc", "ctc text"),
        (encoding, "text_log_likelihoods", "ctc text"),
        (model, "prefill", "prefill"),
        (CachedDecoder, "admit", "admit"),
        (model, "decode", "body"),
        (sampler, "read_vocabulary", "tail"),
        (CachedDecoder, "read_out", "read out"),
        (Rescorer, "_rescore", "rescore"),
        (Transcriber, "_read", "read"),
    ]
    with ExitStack() as stack:
        for owner, name, phase in places:
            stack.enter_context(mock.patch.object(owner, name, watch.timed(phase, getattr(owner, name))))
        # Nothing beside what is timed.
        stack.enter_context(mock.patch.object(composition, "waits_for", return_value=False))
        yield


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What is measured: an engine on windows of the model's length, and every canvas takes all its steps."""

    engine: str = "ours"
    batch: int
    canvas: int
    steps: int = 8
    chunk: int = 8192
    """Vocabulary entries at a time."""
    is_compiled: bool = False

    @property
    def name(self) -> str:
        """Of its file."""
        ways = f"-chunk{self.chunk}" * (self.chunk != Run(batch=1, canvas=1).chunk) + "-compiled" * self.is_compiled
        return f"{self.engine}-batch{self.batch}-canvas{self.canvas}-steps{self.steps}{ways}"

    def recipe(self, model: AsrModel) -> Recipe:
        """Compose it for a model; random weights never settle, and trained ones must not."""
        recipe = build_recipe(model.config, model.identity, max_steps=self.steps, segmentation="loudness")
        decode = replace(recipe.decode, confidence_threshold=0.0, vocabulary_chunk=self.chunk)
        return replace(recipe, decode=decode)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One measurement; nothing where the memory did not hold it."""

    rtfx: float | None = None
    """Seconds of audio per second."""
    ms_per_step: float | None = None
    """A batch's time but for what is done before and after denoising, by step; for `transformers` the whole."""
    share_of_bound: float | None = None
    """Least time of what the engine does, by the machine's rates / measured time."""
    peak_bytes: int | None = None
    """Of a GPU's memory, weights with it."""
    busy_share: float | None = None
    """Of one batch's time, in which the device works: its kernels' time, or on a CPU that of torch's operations."""
    phases_s: dict[str, float] | None = None
    """Seconds of one batch by phase, in a run of its own in which each phase waits for the device; `ours` only."""


def measure(model: AsrModel, run: Run, rates: Rates) -> Measured:
    """Measure one batch after one to warm up, on a model that lies on its device."""
    if run.is_compiled:
        model.compile_decoder("inductor" if model.device.type == "cuda" else "eager")
    try:
        return _measure(model, run, rates)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    # Only here, where the error holds the failed batch's tensors no longer, is their memory free.
    release_memory()
    return Measured()


def _measure(model: AsrModel, run: Run, rates: Rates) -> Measured:
    recipe, clip_s = run.recipe(model), seconds(model.config.window_samples)
    segments = noise_segments(model.config, clip_s, run.batch)

    def decode() -> None:
        ENGINES[run.engine](model, recipe, segments, run.batch, run.canvas)

    decode()
    watch, is_gpu = Stopwatch(model.device), model.device.type == "cuda"
    if is_gpu:
        torch.cuda.reset_peak_memory_stats(model.device)
    started = watch.now()
    decode()
    wall_s = watch.now() - started
    peak_bytes = torch.cuda.max_memory_allocated(model.device) if is_gpu else None
    busy, phases_s, other_s = busy_share(model.device, decode), None, 0.0
    if run.engine == "ours":
        started = watch.now()
        with phases_of(model, watch):
            decode()
        whole_s = watch.now() - started
        phases_s = {phase: round(watch.seconds[phase], 5) for phase in PHASES[:-1]}
        phases_s[PHASES[-1]] = round(whole_s - sum(phases_s.values()), 5)
        other_s = sum(part_s for phase, part_s in phases_s.items() if phase not in IN_A_STEP)
    return Measured(
        rtfx=round(run.batch * clip_s / wall_s, 2), ms_per_step=round(1000 * max(wall_s - other_s, 0.0) / run.steps, 3),
        share_of_bound=round(least_s(model, run, rates) / wall_s, 4), peak_bytes=peak_bytes, busy_share=busy,
        phases_s=phases_s,
    )  # fmt: skip


def least_s(model: AsrModel, run: Run, rates: Rates) -> float:
    """Least time of a batch by the machine's rates, s; transformers reads no CTC, and projects once."""
    is_ours, config = run.engine == "ours", model.config
    work = window_work(config, run.batch, run.canvas, seconds(config.window_samples) if is_ours else 0.0)
    return sum(
        part.seconds(rates, model.head_weight.element_size()) * (run.steps if phase in ("body", "tail") else 1)
        for phase, part in work.items()
        if is_ours or phase not in ("ctc", "rescore")
    )


def _features(segments: Segments, config: FeatureConfig) -> Iterator[SegmentFeatures]:
    for segment, waveform in segments:
        yield segment_features(segment, waveform, config)
