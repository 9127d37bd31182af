"""The loop that denoises many segments' canvases in a batch whose rows come and go.

In: jobs, pulled as needed, and a decoder. Out: finished canvases, as they finish. A row leaves when its canvas is
settled or out of steps, and a waiting job takes its place; the shape of the batch never changes. Knows nothing of
audio, prompts or text.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dgasr.device import fetch, upload
from dgasr.diffusion import Canvas, CanvasJob, DecodeConfig
from dgasr.diffusion.sampler import CanvasRows
from dgasr.diffusion.vocabulary import VocabularyHead
from dgasr.errors import ConfigError, IntegrityError

LOOK_AHEAD_BATCHES = 32
"""Batches' worth of jobs that may wait, so that rows seldom idle while the last canvases of one length are finished:
95 % of rows are in use on speech of mixed lengths, 62 % with 2 batches (`python -m benchmarks occupancy`)."""

MOST_LOOK_AHEAD = 2048
"""Jobs that may wait at most: of 30 s each 0.5 MB of features, so a gigabyte of the host's memory."""


PATIENCE = 4
"""Queues of later jobs that may overtake a job of a rarer canvas length; with 2, 93 % of rows are in use, not 95."""


class Decoder(Protocol):
    """The network with a memory of what each row is about."""

    encoded_at_once: int = 32
    """Jobs that `encode` is handed at once, at most."""

    def encode(self, jobs: Sequence[CanvasJob]) -> Sequence[Any]:
        """Prepare jobs of one canvas length, shortly before rows are free for them: what `admit` takes of each."""
        return [job.payload for job in jobs]

    def admit(self, rows: Sequence[int], encoded: Sequence[Any]) -> None:
        """Load encoded jobs into rows, before these rows' first step.

        The first call for a canvas length names every row. What a job becomes must not depend on what it is admitted
        with, nor on the row: encode in batches of one fixed shape.
        """

    def __call__(self, ids: Tensor, soft_embeddings: Tensor) -> Tensor:
        """Run the network once; see `rows.Denoiser`."""

    def read_out(self, encoded: Sequence[Any], ids: Tensor) -> list[Tensor]:
        """Compute what else is wanted of rows that leave, to be fetched from the device together with their canvases.

        Of what was admitted to these rows and their likeliest tokens, [rows, canvas]: float32 of any shape for each
        row, or nothing at all.
        """
        return []


class Watch(Protocol):
    """Looks at canvases while they are denoised."""

    def wants(self, job: CanvasJob) -> bool:
        """Say whether a job's canvas is to be shown; it costs a wait for the device a step."""

    def show(self, job: CanvasJob, step: int, ids: np.ndarray, log_probabilities: np.ndarray) -> None:
        """Take what a step made likeliest, and natural logarithms of how likely it is; [canvas] each."""


@torch.no_grad()
def denoise(
    decoder: Decoder,
    head: VocabularyHead,
    jobs: Iterable[CanvasJob | None],
    *,
    num_rows: int,
    buckets: tuple[int, ...],
    end_token_ids: tuple[int, ...],
    config: DecodeConfig,
    watch: Watch | None = None,
) -> Iterator[Canvas]:
    """Denoise the canvas of every job.

    A job whose canvas holds no end of text is done again on the next larger canvas; nothing is cut. A canvas depends
    on its job alone, not on `num_rows`' other occupants, their order or their row.

    Args:
        decoder: the network; takes `num_rows` rows.
        head: its language head.
        jobs: pulled lazily, as far ahead as `LOOK_AHEAD_BATCHES` says; `None` says that there is none now, and that
            rows in use go on.
        num_rows: rows of the batch; fewer jobs leave rows idle.
        buckets: allowed canvas lengths, ascending.
        end_token_ids: tokens that end a text.
        config: schedule and thresholds.
        watch: shown canvases after each step; what it sees changes nothing.

    Yields:
        One canvas per job, in the order in which they finish.

    Raises:
        ConfigError: no rows, or a job's canvas is not one of the buckets.
        IntegrityError: the network returned values that are not numbers.
    """
    if num_rows < 1:
        raise ConfigError(f"denoise: num_rows must be at least 1, got {num_rows}. Choose a batch size.")
    waiting = _WaitingJobs(jobs, buckets, min(num_rows * LOOK_AHEAD_BATCHES, MOST_LOOK_AHEAD))
    while (canvas_tokens := waiting.fullest_bucket()) is not None:
        rows = CanvasRows(num_rows, canvas_tokens, head, config)
        for canvas in _denoise_bucket(decoder, rows, waiting, num_rows, end_token_ids, watch):
            larger = canvas.job.enlarged(buckets, canvas.num_steps) if canvas.is_overflowed else None
            if larger is None:
                yield canvas
            else:
                waiting.add(larger)


@dataclass(slots=True)
class _RowInUse:
    """A row in use: its job, what was admitted of it, and the steps it has done on this canvas."""

    job: CanvasJob
    encoded: Any
    steps: int = 0


def _denoise_bucket(
    decoder: Decoder,
    rows: CanvasRows,
    waiting: "_WaitingJobs",
    num_rows: int,
    end_token_ids: tuple[int, ...],
    watch: Watch | None,
) -> Iterator[Canvas]:
    in_use: dict[int, _RowInUse] = {}
    encoded = _EncodedJobs(decoder, waiting, rows.canvas_tokens)
    is_first = True
    while True:
        free = [row for row in range(num_rows) if row not in in_use]
        # As they are encoded: nothing but a part of one encoded batch ever waits.
        while free and (entering := encoded.take(len(free))):
            taken = free[: len(entering)]
            in_use |= zip(taken, entering, strict=True)
            # Idle rows begin as copies, so that the decoder never meets a row it knows nothing about.
            copies = entering[:1] * (len(free) - len(taken)) if is_first else []
            admitted = free if is_first else taken
            decoder.admit(admitted, [used.encoded for used in (*entering, *copies)])
            rows.begin(admitted, [used.job for used in (*entering, *copies)])
            free, is_first = free[len(entering) :], False
            del entering, copies  # or what rows hold would stay until others come
        if not in_use:
            return
        settled = rows.step(decoder).cpu().numpy()  # the one wait for the device in a step
        for used in in_use.values():
            used.steps += 1
        if watch is not None:
            _show(watch, rows, in_use)
        leaving = [row for row, used in in_use.items() if settled[row] or used.steps == rows.config.max_steps]
        if leaving:
            yield from _finished(decoder, rows, {row: in_use.pop(row) for row in leaving}, settled, end_token_ids)


def _show(watch: Watch, rows: CanvasRows, in_use: dict[int, _RowInUse]) -> None:
    found, wanted = rows.statistics, [row for row, used in in_use.items() if watch.wants(used.job)]
    if found is None or not wanted:
        return
    chosen = upload(torch.tensor(wanted), rows.ids.device)
    ids, log_probabilities = fetch([found.argmax_ids[chosen], found.argmax_log_probability[chosen]])
    for row, *seen in zip(wanted, ids.astype(np.int64), log_probabilities, strict=True):
        watch.show(in_use[row].job, in_use[row].job.spent_steps + in_use[row].steps, *seen)


def _finished(
    decoder: Decoder,
    rows: CanvasRows,
    in_use: dict[int, _RowInUse],
    settled: np.ndarray,
    end_token_ids: tuple[int, ...],
) -> Iterator[Canvas]:
    found = rows.statistics
    assert found is not None
    chosen = upload(torch.tensor(list(in_use)), rows.ids.device)
    tensors = [found.argmax_ids[chosen], found.argmax_log_probability[chosen], found.entropy[chosen]]
    more = decoder.read_out([used.encoded for used in in_use.values()], tensors[0])
    ids, log_probabilities, entropy, *more_values = fetch([*tensors, *more])
    if not np.isfinite(log_probabilities).all():
        raise IntegrityError(
            "denoise: the decoder returned hidden states that are not finite. The checkpoint is damaged or its type "
            "overflows; check it with `dgasr doctor`, or load it in float32."
        )
    ids = ids.astype(np.int64)
    is_end = np.isin(ids, end_token_ids)
    for index, (row, used) in enumerate(in_use.items()):
        is_overflowed = not is_end[index].any()
        yield Canvas(
            job=used.job,
            encoded=used.encoded,
            ids=ids[index],
            log_probabilities=log_probabilities[index],
            entropy=entropy[index],
            num_tokens=rows.canvas_tokens if is_overflowed else int(is_end[index].argmax()),
            num_steps=used.job.spent_steps + used.steps,
            is_settled=bool(settled[row]),
            is_overflowed=is_overflowed,
            read_out=more_values[index] if more_values else None,
        )


class _EncodedJobs:
    """Jobs of one canvas length that are ready for a row."""

    def __init__(self, decoder: Decoder, waiting: "_WaitingJobs", canvas_tokens: int) -> None:
        self._decoder, self._waiting, self._canvas_tokens = decoder, waiting, canvas_tokens
        self._ready: deque[_RowInUse] = deque()

    def take(self, count: int) -> list[_RowInUse]:
        """Take up to `count` jobs, of an encoded batch's rest if there is any; none when none wait."""
        while not self._ready and (jobs := self._waiting.take(self._canvas_tokens, self._decoder.encoded_at_once)):
            self._ready += map(_RowInUse, jobs, self._decoder.encode(jobs))
        return [self._ready.popleft() for _ in range(min(count, len(self._ready)))]


class _WaitingJobs:
    """Jobs that wait for a row, by canvas length; refilled from the source up to a limit."""

    def __init__(self, source: Iterable[CanvasJob | None], buckets: tuple[int, ...], limit: int) -> None:
        self._source = iter(source)
        self._queues: dict[int, deque[tuple[int, CanvasJob]]] = {bucket: deque() for bucket in buckets}
        self._limit, self._num_added = limit, 0

    def add(self, job: CanvasJob) -> None:
        if job.canvas_tokens not in self._queues:
            raise ConfigError(
                f"denoise: a job asks for a canvas of {job.canvas_tokens} tokens, the buckets are "
                f"{sorted(self._queues)}. Take the canvas length from the model's config."
            )
        self._queues[job.canvas_tokens].append((self._num_added, job))
        self._num_added += 1

    def take(self, canvas_tokens: int, count: int) -> list[CanvasJob]:
        """Take up to `count` jobs of one canvas length; none once another length has waited for `PATIENCE` queues."""
        queue = self._queues[canvas_tokens]
        taken: list[CanvasJob] = []
        while len(taken) < count:
            self._refill()
            if not queue or self._is_too_young(queue):
                break
            taken.append(queue.popleft()[1])
        return taken

    def fullest_bucket(self) -> int | None:
        """Return the canvas length that most jobs wait for, of those that may go on; `None` when no job is left."""
        self._refill()
        sizes = {
            bucket: len(queue) for bucket, queue in self._queues.items() if queue and not self._is_too_young(queue)
        }
        return max(sizes, key=lambda bucket: sizes[bucket], default=None)

    def _is_too_young(self, queue: deque[tuple[int, CanvasJob]]) -> bool:
        """Tell whether its first job came so late that the oldest of all has to go first."""
        oldest = min(own[0][0] for own in self._queues.values() if own)
        return queue[0][0] > oldest + PATIENCE * self._limit

    def _refill(self) -> None:
        num_waiting = sum(map(len, self._queues.values()))
        while num_waiting < self._limit and (job := next(self._source, None)) is not None:
            self.add(job)
            num_waiting += 1
