"""Work done in a thread of its own while the caller's thread goes on; results in order. Knows no work."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def aside(work: Callable[[Item], Result], items: Iterable[Item], limit: int) -> Generator[Result]:
    """Do something with every item while the next items are made.

    Args:
        work: what is done, with one item at a time.
        items: made in the caller's thread.
        limit: results that may be outstanding; 0 does everything in the caller's thread.

    Yields:
        The results, in the items' order; what `work` raised is raised in its result's place.
    """
    if limit == 0:
        yield from map(work, items)
        return
    worker = ThreadPoolExecutor(1, thread_name_prefix="aside")
    try:
        outstanding: deque[Future[Result]] = deque()
        for item in items:
            outstanding.append(worker.submit(work, item))
            while outstanding and (len(outstanding) > limit or outstanding[0].done()):
                yield outstanding.popleft().result()
        while outstanding:
            yield outstanding.popleft().result()
    finally:
        worker.shutdown(cancel_futures=True)
