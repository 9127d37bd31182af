"""What goes into the denoiser and what comes out: a segment's job, and its finished canvas."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np


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
