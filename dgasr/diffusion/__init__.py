"""The diffusion decoder: uniform noise to text, many segments at a time.

`denoise.py` loops over a changing batch, `sampler.py` takes a step, `vocabulary.py` reads the distribution chunk by
chunk (on a GPU by `vocabulary_kernel.py`), `noise.py` draws. Here is what goes in and comes out: settings, a segment's
job, and its finished canvas; torch-free, so that a recipe can be read and fingerprinted anywhere.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dgasr.errors import ConfigError
from dgasr.records import settings


@settings
class DecodeConfig:
    """How a canvas is denoised. Every field changes text, so every field is part of the recipe.

    max_steps: decoder calls a canvas gets at most; a settled canvas leaves earlier.
    entropy_bound: nats; positions are accepted, surest first, while the entropies before them sum to at most this.
    confidence_threshold: nats; a canvas is settled when its mean entropy is below this. 0 keeps every canvas for
        `max_steps`, which makes timings comparable.
    stability_threshold: steps for which a settled canvas has not changed.
    t_max: temperature before the first step; step n of N has `t_min + (t_max - t_min) * (N - n) / N`, n from 0.
    t_min: temperature that the schedule approaches after the last step.
    vocabulary_chunk: vocabulary entries held at a time; it also numbers the draws of a sample.

    Source:
        Defaults are the generation config of google/diffusiongemma-26B-A4B-it, except `max_steps` (there 48): the
        reference system's word error rate moves by 0.1 between 8 and 48.
    """

    max_steps: int = 8
    entropy_bound: float = 0.1
    confidence_threshold: float = 0.005
    stability_threshold: int = 1
    t_max: float = 0.8
    t_min: float = 0.4
    vocabulary_chunk: int = 8192

    def __post_init__(self) -> None:
        if self.max_steps < 1:
            raise ConfigError(f"max_steps is {self.max_steps}: a canvas gets 1 step or more.")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CanvasJob:
    """A canvas to be denoised.

    noise_key: 64 bits from `noise.segment_key`.
    canvas_tokens: length of the canvas, one of the buckets.
    payload: what the decoder encodes before it takes the job in; the denoiser only hands it on.
    spent_steps: steps that smaller canvases, which the text did not fit, have cost already.
    """

    noise_key: int
    canvas_tokens: int
    payload: Any
    spent_steps: int = 0

    def enlarged(self, buckets: tuple[int, ...], num_steps: int) -> "CanvasJob | None":
        """Return this job on the next larger canvas, or `None` when there is none, with all the steps spent so far."""
        larger = next((bucket for bucket in buckets if bucket > self.canvas_tokens), None)
        return None if larger is None else replace(self, canvas_tokens=larger, spent_steps=num_steps)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Canvas:
    """A denoised canvas, on the host.

    job: what was asked for, with the canvas length that was used in the end.
    encoded: what the decoder's `encode` made of the job.
    ids: the likeliest token of every position.  [canvas] int64
    log_probabilities: of these tokens at temperature 1, natural logarithm.  [canvas] float32
    entropy: of every position at the last step's temperature, nats.  [canvas] float32
    num_tokens: length of the text: positions before the first end-of-text token.
    num_steps: decoder calls spent, those on smaller canvases with them.
    is_settled: the canvas stopped changing and was sure; `False` when `max_steps` ended it.
    is_overflowed: the largest canvas holds no end of text, so the text may go on; `num_tokens` is the whole canvas.
    read_out: what the decoder's `read_out` computed of it, float32; `None` for nothing.
    """

    job: CanvasJob
    encoded: Any
    ids: np.ndarray
    log_probabilities: np.ndarray
    entropy: np.ndarray
    num_tokens: int
    num_steps: int
    is_settled: bool
    is_overflowed: bool
    read_out: np.ndarray | None = None
