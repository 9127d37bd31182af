"""A step that the device records once and then replays: one launch in place of thousands (a CUDA graph).

In: a step that reads and writes the same tensors at every call and asks the device for no value. Out: one that does the
same. Worth it where launching takes longer than the work, at a few rows. Knows no network and no canvas.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

Step = Callable[[], Tensor]
"""A step; returns the tensor that says which rows are settled."""

Record = Callable[[Step], Step]
"""Runs a step without effect while noting what it does, and returns what does it again, on the same tensors."""

PLAIN_STEPS = 2
"""Steps taken as they are before one is recorded: kernels are compiled and libraries loaded at their first use, which
cannot be recorded; the second one runs with what the first one left."""


def choose_record(device: torch.device) -> Record | None:
    """Choose what records steps: CUDA graphs on CUDA; `None` elsewhere, where launching costs next to nothing.

    Steps recorded by one choice share memory: what one leaves there holds until another is taken.
    """
    if device.type != "cuda":
        return None
    return partial(record_cuda_graph, pool=torch.cuda.graph_pool_handle())


def record_cuda_graph(step: Step, pool: Any) -> Step:
    """Record a step as a CUDA graph; what it allocates in `pool`, a handle of torch, stays as long as the result."""
    graph = torch.cuda.CUDAGraph()
    # Other threads, which read audio and place words, may go on asking CUDA for things.
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        settled = step()

    def replay() -> Tensor:
        graph.replay()
        return settled

    return replay


class RecordedStep:
    """A step that is recorded at its third call.

    Args:
        step: does the same to the same tensors at every call.
        record: from `choose_record`; `None` takes every step as it is.
    """

    def __init__(self, step: Step, record: Record | None) -> None:
        self._step, self._record = step, record
        self._num_plain = 0

    def __call__(self) -> Tensor:
        """Take a step."""
        if self._record is not None:
            if self._num_plain == PLAIN_STEPS:
                self._step, self._record = self._record(self._step), None
            self._num_plain += 1
        return self._step()
