"""Items made by a thread a little ahead of whoever takes them. Knows nothing about the items."""

import threading
from collections.abc import Iterable, Iterator
from queue import Full, Queue
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")

RETRY_S = 0.2
"""How often a thread that may go no further ahead looks whether anybody still listens, s."""


class Prefetch(Generic[Item]):
    """Iterates over a source in a thread of its own; used in a `with` block, which ends the thread.

    Args:
        source: where the items come from; only touched by the thread. What it raises is raised where the item would
            have come.
        num_ahead: most items that wait.
    """

    def __init__(self, source: Iterable[Item], num_ahead: int) -> None:
        self._source = source
        self._queue: Queue[tuple[Item] | BaseException | None] = Queue(num_ahead)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="prefetch", daemon=True)

    def __enter__(self) -> "Prefetch[Item]":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._closed.set()
        self._thread.join()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        if self._closed.is_set():
            raise StopIteration
        found = self._queue.get()
        if isinstance(found, tuple):
            return found[0]
        self._closed.set()
        raise StopIteration if found is None else found

    def _work(self) -> None:
        try:
            for item in self._source:
                if not self._put((item,)):
                    return
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _put(self, entry: tuple[Item] | BaseException | None) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put(entry, timeout=RETRY_S)
                return True
            except Full:
                continue
        return False
