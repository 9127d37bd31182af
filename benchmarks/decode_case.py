"""One engine on clips of one length: its speed, where time goes, how many clips fit the memory at once.

Engines: `ours`, from waveforms to transcripts, and transformers' `generate`, to token ids.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.bound import window_work
from benchmarks.decode_model import RANDOM_DIGEST, noise_segments
from benchmarks.machine import PeakMemory, Rates, Stopwatch, busy_share, largest_fitting
from dgasr.diffusion import sampler
from dgasr.diffusion.canvas import Canvas
from dgasr.diffusion.decode_config import DecodeConfig
from dgasr.features import FeatureConfig, pad_features, segment_features
from dgasr.model.asr import AsrModel
from dgasr.prompt import build_prompt
from dgasr.recipe import Recipe
from dgasr.records import Segment, SegmentFeatures, seconds
from dgasr.transcriber import Transcriber, encoding
from dgasr.transcriber import segments as composition
from dgasr.transcriber.encoding import SegmentEncoder
from dgasr.transcriber.memory import is_out_of_memory, release_memory
from dgasr.transcriber.rescoring import Rescorer
from dgasr.transcriber.segments import CachedDecoder

Segments = Sequence[tuple[Segment, np.ndarray]]

NEVER_CONFIDENT = 1e-30
"""Nats; `generate` refuses 0."""

LARGEST_TRIED = 4096
"""Segments; more at once have no use."""

STEPS_AT_THE_PEAK = 2
"""Steps that take as much memory as any number: the second one holds what the first one left."""

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
    before = [(owner, name, owner.__dict__.get(name)) for owner, name, _ in places]
    for owner, name, phase in places:
        setattr(owner, name, watch.timed(phase, getattr(owner, name)))
    waits_for, composition.waits_for = composition.waits_for, lambda device: False  # nothing beside what is timed
    try:
        yield
    finally:
        composition.waits_for = waits_for
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One measurement; `null` where the memory did not hold it."""

    engine: str
    clip_s: float
    batch: int
    canvas: int
    rtfx: float | None = None
    """Seconds of audio per second."""
    ms_per_step: float | None = None
    """A batch's time but for what is done before and after denoising, by step; for `transformers` the whole."""
    share_of_bound: float | None = None
    """Least time of what the engine does, by the machine's rates / measured time."""
    peak_bytes: int | None = None
    """Of the device's memory, weights with it; on a CPU of the whole process, where the system counts that."""
    busy_share: float | None = None
    """Of one batch's time, in which the device works: its kernels' time, or on a CPU that of torch's operations."""
    phases_s: dict[str, float] | None = None
    """Seconds of one batch by phase, in a run of its own in which each phase waits for the device; `ours` only."""
    tokens_per_expert: dict[str, float] | None = None
    """Mean, least and most in one step, and the share of experts with any; `ours` only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeCase:
    """What is measured.

    model: on its device.
    recipe: of this model, with a fixed number of steps.
    engine: `ours` or `transformers`.
    clip_s: length of the clips, at most the model's window.
    canvas: tokens of every canvas.
    rounds: batches timed after one to warm up.
    """

    model: AsrModel
    recipe: Recipe
    engine: str
    clip_s: float
    canvas: int
    rounds: int

    def largest_batch(self) -> int:
        """Find how many clips the memory holds at once; 0 where it does not hold one."""
        recipe = replace(self.recipe, decode=fixed_steps(self.recipe, STEPS_AT_THE_PEAK))
        return largest_fitting(lambda batch: self._fits(partial(self._decode, recipe, batch, 1)), LARGEST_TRIED)

    def measure(self, rates: Rates, batch: int) -> Measured:
        """Measure; without figures where the memory does not hold the batch."""
        found: list[Measured] = []
        is_held = batch > 0 and self._fits(lambda: found.append(self._measure(rates, batch)))
        return found[0] if is_held else self._figures(batch)

    def _measure(self, rates: Rates, batch: int) -> Measured:
        model, steps = self.model, self.recipe.decode.max_steps
        self._decode(self.recipe, batch, 1)
        peak, watch = PeakMemory(model.device), Stopwatch(model.device)
        started = watch.now()
        self._decode(self.recipe, batch, self.rounds)
        wall_s = (watch.now() - started) / self.rounds  # of one batch
        peak_bytes = peak.bytes()
        busy = busy_share(model.device, lambda: self._decode(self.recipe, batch, 1))
        phases_s, other_s, experts = None, 0.0, None
        if self.engine == "ours":
            phases_s, experts = self._phases(batch)
            other_s = sum(part_s for phase, part_s in phases_s.items() if phase not in IN_A_STEP)
        return self._figures(
            batch, rtfx=round(batch * self.clip_s / wall_s, 2),
            ms_per_step=round(1000 * max(wall_s - other_s, 0.0) / steps, 3),
            share_of_bound=round(self.least_s(rates, batch) / wall_s, 4), peak_bytes=peak_bytes, busy_share=busy,
            phases_s=phases_s, tokens_per_expert=experts,
        )  # fmt: skip

    def _figures(self, batch: int, **found: Any) -> Measured:
        return Measured(engine=self.engine, clip_s=self.clip_s, batch=batch, canvas=self.canvas, **found)

    def least_s(self, rates: Rates, batch: int) -> float:
        """Least time of a batch by the machine's rates; transformers reads no CTC, and projects once."""
        is_ours, config = self.engine == "ours", self.model.config
        work = window_work(config, batch, self.canvas, self.clip_s if is_ours else 0.0)
        return sum(
            part.seconds(rates, self.model.head_weight.element_size())
            * (self.recipe.decode.max_steps if phase in ("body", "tail") else 1)
            for phase, part in work.items()
            if is_ours or phase not in ("ctc", "rescore")
        )

    def _decode(self, recipe: Recipe, batch: int, rounds: int) -> None:
        ENGINES[self.engine](
            self.model, recipe, noise_segments(self.model.config, self.clip_s, batch * rounds), batch, self.canvas
        )

    def _phases(self, batch: int) -> tuple[dict[str, float], dict[str, float]]:
        """Time one batch by phase, and see how evenly its tokens are routed."""
        watch, counts = Stopwatch(self.model.device), list[Tensor]()
        segments = noise_segments(self.model.config, self.clip_s, batch)
        started = watch.now()
        with phases_of(self.model, watch):
            decode_ours(self.model, self.recipe, segments, batch, self.canvas)
        whole_s = watch.now() - started
        phases = {phase: round(watch.seconds[phase], 5) for phase in PHASES[:-1]}
        phases[PHASES[-1]] = round(whole_s - sum(phases.values()), 5)
        with tokens_per_expert(self.model, counts):
            one_step = replace(self.recipe, decode=fixed_steps(self.recipe, 1))
            decode_ours(self.model, one_step, segments, batch, self.canvas)
        routed = torch.stack(counts).double()  # [layers, experts]
        experts = {"mean": float(routed.mean()), "least": float(routed.min()), "most": float(routed.max()),
                   "used": float((routed > 0).double().mean())}  # fmt: skip
        return phases, {name: round(value, 3) for name, value in experts.items()}

    def _fits(self, work: Callable[[], object]) -> bool:
        """Do something, and tell whether the memory held it."""
        is_held = True
        try:
            work()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            is_held = False
        # Only here, where the error holds the failed batch's tensors no longer, is their memory free.
        release_memory()
        return is_held
