"""The loop that denoises many segments' canvases in a batch whose rows come and go.

In: jobs, pulled as needed, and a decoder. Out: finished canvases, as they finish. A row leaves when its canvas is
settled or out of steps, and a waiting job takes its place; the shape of the batch never changes. Knows nothing of
audio, prompts or text.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from dgasr.diffusion.canvas import Canvas, CanvasJob
from dgasr.diffusion.decode_config import DecodeConfig
from dgasr.diffusion.sampler import CanvasRows
from dgasr.diffusion.vocabulary import VocabularyHead
from dgasr.errors import ConfigError, IntegrityError

_LOOK_AHEAD_BATCHES = 2
"""Batches' worth of jobs pulled ahead, so that jobs of one canvas length can be taken together."""

_MOST_LOOK_AHEAD = 128
"""Jobs pulled ahead at most: each holds its prompt's keys and values, 50 MB in the full model."""


class Decoder(Protocol):
    """The network with a memory of what each row is about."""

    def admit(self, rows: Sequence[int], payloads: Sequence[Any]) -> None:
        """Load payloads into rows, before these rows' first step.

        The first call for a canvas length names every row. What a payload becomes must not depend on what it is
        admitted with, nor on the row: encode in batches of one fixed shape.
        """

    def __call__(self, ids: Tensor, soft_embeddings: Tensor) -> Tensor:
        """Run the network once; see `rows.Denoiser`."""


@torch.no_grad()
def denoise(
    decoder: Decoder,
    head: VocabularyHead,
    jobs: Iterable[CanvasJob],
    *,
    num_rows: int,
    buckets: tuple[int, ...],
    end_token_ids: tuple[int, ...],
    config: DecodeConfig,
) -> Iterator[Canvas]:
    """Denoise the canvas of every job.

    A job whose canvas holds no end of text is done again on the next larger canvas; nothing is cut. A canvas depends
    on its job alone, not on `num_rows`' other occupants, their order or their row.

    Args:
        decoder: the network; takes `num_rows` rows.
        head: its language head.
        jobs: pulled lazily, a few batches ahead.
        num_rows: rows of the batch; fewer jobs leave rows idle.
        buckets: allowed canvas lengths, ascending.
        end_token_ids: tokens that end a text.
        config: schedule and thresholds.

    Yields:
        One canvas per job, in the order in which they finish.

    Raises:
        ConfigError: no rows, or a job's canvas is not one of the buckets.
        IntegrityError: the network returned values that are not numbers.
    """
    if num_rows < 1:
        raise ConfigError(f"denoise: num_rows must be at least 1, got {num_rows}. Choose a batch size.")
    waiting = _WaitingJobs(jobs, buckets, min(num_rows * _LOOK_AHEAD_BATCHES, _MOST_LOOK_AHEAD))
    while (canvas_tokens := waiting.fullest_bucket()) is not None:
        rows = CanvasRows(num_rows, canvas_tokens, head, config)
        for canvas in _denoise_bucket(decoder, rows, waiting, num_rows, end_token_ids):
            larger = canvas.job.enlarged(buckets, canvas.num_steps) if canvas.is_overflowed else None
            if larger is None:
                yield canvas
            else:
                waiting.add(larger)


@dataclass(slots=True)
class _RowInUse:
    """A row in use: its job, and the steps it has done on this canvas."""

    job: CanvasJob
    steps: int = 0


def _denoise_bucket(
    decoder: Decoder,
    rows: CanvasRows,
    waiting: "_WaitingJobs",
    num_rows: int,
    end_token_ids: tuple[int, ...],
) -> Iterator[Canvas]:
    in_use: dict[int, _RowInUse] = {}
    is_first = True
    while True:
        free = [row for row in range(num_rows) if row not in in_use]
        entering = waiting.take(rows.canvas_tokens, len(free))
        if not entering and not in_use:
            return
        in_use.update(zip(free, map(_RowInUse, entering), strict=False))
        # Idle rows begin as copies, so that the decoder never meets a row it knows nothing about.
        admitted = [*entering, *entering[:1] * (len(free) - len(entering))] if is_first else entering
        is_first = False
        if admitted:
            decoder.admit(free[: len(admitted)], [job.payload for job in admitted])
            rows.begin(free[: len(admitted)], admitted)
        settled = rows.step(decoder).tolist()  # the one wait for the device in a step
        for used in in_use.values():
            used.steps += 1
        leaving = [row for row, used in in_use.items() if settled[row] or used.steps == rows.config.max_steps]
        if leaving:
            yield from _finished(rows, {row: in_use.pop(row) for row in leaving}, settled, end_token_ids)


def _finished(
    rows: CanvasRows, in_use: dict[int, _RowInUse], settled: list[bool], end_token_ids: tuple[int, ...]
) -> Iterator[Canvas]:
    found = rows.statistics
    assert found is not None
    chosen = torch.tensor(list(in_use), device=rows.ids.device)
    tensors = (found.argmax_ids, found.argmax_log_probability, found.entropy)
    ids, log_probabilities, entropy = (tensor[chosen].cpu() for tensor in tensors)
    if not log_probabilities.isfinite().all():
        raise IntegrityError(
            "denoise: the decoder returned hidden states that are not finite. The checkpoint is damaged or its type "
            "overflows; check it with `dgasr doctor`, or load it in float32."
        )
    for index, (row, used) in enumerate(in_use.items()):
        ends = torch.isin(ids[index], torch.tensor(end_token_ids)).nonzero()
        yield Canvas(
            job=used.job,
            ids=ids[index],
            log_probabilities=log_probabilities[index],
            entropy=entropy[index],
            num_tokens=int(ends[0]) if len(ends) else rows.canvas_tokens,
            num_steps=used.job.spent_steps + used.steps,
            is_settled=settled[row],
            is_overflowed=not len(ends),
        )


class _WaitingJobs:
    """Jobs that wait for a row, by canvas length; refilled from the source up to a limit."""

    def __init__(self, source: Iterable[CanvasJob], buckets: tuple[int, ...], limit: int) -> None:
        self._source = iter(source)
        self._queues: dict[int, deque[CanvasJob]] = {bucket: deque() for bucket in buckets}
        self._limit = limit

    def add(self, job: CanvasJob) -> None:
        if job.canvas_tokens not in self._queues:
            raise ConfigError(
                f"denoise: a job asks for a canvas of {job.canvas_tokens} tokens, the buckets are "
                f"{sorted(self._queues)}. Take the canvas length from the model's config."
            )
        self._queues[job.canvas_tokens].append(job)

    def take(self, canvas_tokens: int, count: int) -> list[CanvasJob]:
        """Take up to `count` jobs of one canvas length."""
        queue = self._queues[canvas_tokens]
        taken: list[CanvasJob] = []
        while len(taken) < count:
            self._refill()
            if not queue:
                break
            taken.append(queue.popleft())
        return taken

    def fullest_bucket(self) -> int | None:
        """Return the canvas length that most jobs wait for, `None` when no job is left."""
        self._refill()
        bucket, queue = max(self._queues.items(), key=lambda item: len(item[1]))
        return bucket if queue else None

    def _refill(self) -> None:
        num_waiting = sum(map(len, self._queues.values()))
        while num_waiting < self._limit and (job := next(self._source, None)) is not None:
            self.add(job)
            num_waiting += 1
