"""Segments of many requests transcribed in one changing batch: they enter as they come and leave as they finish.

A thread of its own runs the transcriber; requests wait for futures. What a segment becomes depends on it alone, so
that a request's text is that of a batch run, whatever else is asked for at the same time.
"""

import logging
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from dgasr.diffusion import CanvasJob
from dgasr.diffusion.denoise import Watch
from dgasr.errors import DgasrError
from dgasr.records import Segment, SegmentFeatures, SegmentTranscript
from dgasr.transcriber import Transcriber

logger = logging.getLogger(__name__)


class BusyError(DgasrError):
    """Too many segments wait; the message says how many."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a segment is transcribed, language and denoising steps at most: segments of one way share batches."""

    language: str
    max_steps: int


OnStep = Callable[[Segment, int, np.ndarray, np.ndarray], None]
"""(segment, step, likeliest ids, natural logarithms of how likely they are): what a canvas is after a step."""


@dataclass(slots=True)
class _Job:
    number: int
    features: SegmentFeatures
    on_step: OnStep | None
    future: Future[SegmentTranscript] = field(default_factory=Future)


class LiveTranscriber:
    """Takes segments from any thread.

    `transcriber_of` gives the transcriber of a way, whose canvases the second argument watches; it is called in the
    working thread. `max_waiting` segments may wait for a row.
    """

    def __init__(self, transcriber_of: Callable[[Way, Watch], Transcriber], max_waiting: int) -> None:
        self._transcriber_of, self._max_waiting = transcriber_of, max_waiting
        self._condition = threading.Condition()  # of what waits; what is taken belongs to the working thread
        self._waiting: defaultdict[Way, deque[_Job]] = defaultdict(deque)
        self._taken: defaultdict[Segment, deque[_Job]] = defaultdict(deque)
        self._num_submitted = 0
        self.is_closed = False  # whether nothing is taken any more
        self._thread = threading.Thread(target=self._run, name="transcriber", daemon=True)
        self._thread.start()

    @property
    def num_waiting(self) -> int:
        """Segments that wait for a row."""
        with self._condition:
            return sum(map(len, self._waiting.values()))

    def submit(
        self, way: Way, features: Sequence[SegmentFeatures], on_step: OnStep | None = None
    ) -> list[Future[SegmentTranscript]]:
        """Queue the segments of one request, all or none; return a future for each. A cancelled one takes no row.

        `on_step` is told after each step, in the working thread, what their canvases are.

        Raises:
            BusyError: they do not fit the queue.
        """
        with self._condition:
            waiting = sum(map(len, self._waiting.values()))
            if self.is_closed:
                raise BusyError("This server is about to end.")
            if waiting + len(features) > self._max_waiting:
                raise BusyError(f"{waiting} segments wait, {len(features)} more would be above {self._max_waiting}.")
            jobs = [_Job(self._num_submitted + n, own, on_step) for n, own in enumerate(features)]
            self._num_submitted += len(jobs)
            self._waiting[way] += jobs
            self._condition.notify()
        return [job.future for job in jobs]

    def wants(self, job: CanvasJob) -> bool:
        """Say whether somebody watches a segment."""
        return bool(self._watching(job))

    def show(self, job: CanvasJob, step: int, ids: np.ndarray, log_probabilities: np.ndarray) -> None:
        """Tell those who watch a segment."""
        for on_step in self._watching(job):
            on_step(job.payload.segment, step, ids, log_probabilities)

    def _watching(self, job: CanvasJob) -> list[OnStep]:
        # Only the working thread takes and delivers, and asks here: no other changes what is taken.
        return [own.on_step for own in self._taken.get(job.payload.segment, ()) if own.on_step is not None]

    def close(self) -> None:
        """Finish what was taken, take nothing more, and end the thread."""
        with self._condition:
            self.is_closed = True
            self._condition.notify()
        self._thread.join()

    def _run(self) -> None:
        while (way := self._next_way()) is not None:
            try:
                for transcript in self._transcriber_of(way, self).transcribe(self._source(way)):
                    self._deliver(transcript)
            except Exception as error:  # waiting requests must get it, and the next one must find a thread
                logger.exception("transcribing failed")
                self._fail(error)

    def _next_way(self) -> Way | None:
        """Wait for work; the way of the segment that has waited longest, `None` when there will be none."""
        with self._condition:
            while not (heads := {jobs[0].number: way for way, jobs in self._waiting.items() if jobs}):
                if self.is_closed:
                    return None
                self._condition.wait()
            return heads[min(heads)]

    def _source(self, way: Way) -> Iterator[SegmentFeatures | None]:
        """Yield segments of a way as they come, and `None` where there is none now."""
        while True:
            job = self._take(way)
            if job is not None:
                self._taken[job.features.segment].append(job)
            yield job.features if job else None

    def _take(self, way: Way) -> _Job | None:
        with self._condition:
            own = self._waiting[way]
            others = [jobs[0].number for other, jobs in self._waiting.items() if jobs and other != way]
            # Languages have prompts of their own, and each way batches of its own: none may keep the others waiting.
            while own and not (others and own[0].number > min(others) + self._max_waiting):
                job = own.popleft()
                if job.future.set_running_or_notify_cancel():
                    return job
        return None

    def _deliver(self, transcript: SegmentTranscript) -> None:
        jobs = self._taken[transcript.segment]
        job = jobs.popleft()
        if not jobs:
            del self._taken[transcript.segment]
        job.future.set_result(transcript)

    def _fail(self, error: Exception) -> None:
        jobs = [job for same in self._taken.values() for job in same]
        self._taken.clear()
        for job in jobs:
            job.future.set_exception(error)
