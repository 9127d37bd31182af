"""Work that may kill the process it runs in, done in spawned ones, and the recordings found that do it.

Functions and arguments in, results out, or `None` where the process died of it or stood still.
"""

import faulthandler
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from types import TracebackType
from typing import Any, TypeVar

from dgasr.errors import ConfigError, DgasrError, TransientError
from dgasr.records import Recording, Shard

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

TICK_S = 2.0
"""How often progress in the processes is looked at, s."""

STALL_S = 1800.0
"""How long work may stand still before its process is ended, s: longer than storage fails before it says so, and than a
model loads."""

_shared: Any = None
"""In a spawned process: counter and stop mark that it shares with its parent; `None` in any other."""

_stall_s = STALL_S
"""In a spawned process: how long its work may stand still, s."""


class Processes:
    """Spawned processes that work side by side; those that die are replaced, and all end with their parent.

    Args:
        count: how many work at once; 1 for work that must be alone.
        on_progress: told every few seconds how far the work went on, in calls of `note_progress`.
        stall_s: how long work may stand still between two such calls before its process is ended, s.
    """

    def __init__(self, count: int, on_progress: Callable[[int], None], stall_s: float = STALL_S) -> None:
        if count < 1:
            raise ConfigError(f"num_processes is {count}: give the number of processes that read audio, 1 or more.")
        self._count = count
        self._on_progress = on_progress
        self._stall_s = stall_s
        self._context = multiprocessing.get_context("spawn")
        self._shared = self._context.RawArray("q", 2)  # counter, stop mark
        self._num_seen = 0
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._shared[1] = 1
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def run(self, function: Callable[..., Result], *arguments: Any) -> Result | None:
        """Do one piece of work and wait for it; see `run_each`."""
        return next(result for _, result in self.run_each(function, [arguments]))

    def run_each(
        self, function: Callable[..., Result], calls: Iterable[tuple[Any, ...]]
    ) -> Iterator[tuple[tuple[Any, ...], Result | None]]:
        """Do pieces of work: a function that can be imported by name and never returns `None`, with arguments for each.

        Arguments are taken when a process is free. Yields them with the result as they are done; `None` where the work
        ended the process or raised what nobody foresaw, or where a neighbour did, with which it shared the pool.
        """
        waiting = iter(calls)
        running: dict[Future[Result], tuple[tuple[Any, ...], ProcessPoolExecutor]] = {}
        while True:
            for arguments in islice(waiting, self._count - len(running)):
                future, pool = self._submit(function, arguments)
                running[future] = arguments, pool
            if not running:
                return
            finished, _ = wait(running, timeout=TICK_S, return_when=FIRST_COMPLETED)
            self._report()
            for future in finished:
                arguments, pool = running.pop(future)
                yield arguments, self._result(future, pool)

    def _submit(
        self, function: Callable[..., Result], arguments: tuple[Any, ...]
    ) -> tuple[Future[Result], ProcessPoolExecutor]:
        for _ in range(2):
            pool = self._pool or self._start()
            try:
                return pool.submit(_work, function, *arguments), pool
            except BrokenProcessPool:
                self._give_up(pool)
        raise TransientError("Processes die as soon as they start. Look for lack of memory, and try again.")

    def _start(self) -> ProcessPoolExecutor:
        self._pool = ProcessPoolExecutor(
            self._count,
            mp_context=self._context,
            initializer=_begin_process,
            initargs=(self._shared, self._stall_s),
        )
        return self._pool

    def _give_up(self, pool: ProcessPoolExecutor) -> None:
        if self._pool is pool:
            self._pool = None
            pool.shutdown(wait=False)

    def _result(self, future: Future[Result], pool: ProcessPoolExecutor) -> Result | None:
        try:
            return future.result()
        except BrokenProcessPool:
            logger.warning("a process died at its work, or stood still for %.0f s", self._stall_s)
            self._give_up(pool)
        except DgasrError:
            raise
        except Exception:
            logger.warning("a process failed in a way that nobody foresaw", exc_info=True)
        return None

    def _report(self) -> None:
        num_done = self._shared[0]
        self._on_progress(num_done - self._num_seen)
        self._num_seen = num_done


def note_progress() -> None:
    """Count a step of the work that this process does for another, if it does any.

    Raises `KeyboardInterrupt` where the other one has stopped waiting.
    """
    if _shared is not None:
        if _shared[1]:
            raise KeyboardInterrupt
        _shared[0] += 1  # processes may overwrite each other's count: it only shows that something moves
        # A watchdog outside of Python: it also ends C code that never comes back.
        faulthandler.dump_traceback_later(_stall_s, exit=True)


def _begin_process(shared: Any, stall_s: float) -> None:
    """Set up a spawned process: it leaves Ctrl-C to its parent, and ends when that has died."""
    global _shared, _stall_s
    _shared, _stall_s = shared, stall_s
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()


def _work(function: Callable[..., Result], *arguments: Any) -> Result:
    """Do a piece of work in a spawned process."""
    note_progress()
    try:
        return function(*arguments)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "this is a spawned process"
    parent.join()
    os._exit(1)


def settle(
    shard: Shard, work: Callable[[frozenset[str]], Result | None], survives: Callable[[Recording | None], bool]
) -> Result:
    """Do the work of a shard that cost a process, if need be without the recordings that do so.

    `work` does it alone in a process, without the recordings of some ids; `None` where the process died. `survives`
    says whether a process survives a recording of it, or `None` at all. ConfigError where processes die without any
    recording, so that none can be blamed; TransientError where no recording does it when tried alone.
    """

    def ends_processes(recording: Recording | None) -> bool:
        # Once may be somebody else's doing, such as the kernel's for want of memory.
        return not survives(recording) and not survives(recording)

    result = work(frozenset())
    if result is None:
        if ends_processes(None):
            raise ConfigError(
                "A process dies before it has touched a recording: look for lack of memory or a broken installation "
                "with `dgasr doctor` on this machine."
            )
        result = work(frozenset(found.recording_id for found in shard.recordings if ends_processes(found)))
    if result is None:
        raise TransientError(
            f"shard {shard.shard_id}: costs its process, and no recording of it does when tried alone. "
            "Give the worker more memory, or let it run fewer processes."
        )
    return result
