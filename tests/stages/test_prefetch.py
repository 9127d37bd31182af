import threading
from collections.abc import Iterator
from itertools import count

import pytest

from dgasr.stages.prefetch import Prefetch


def test_items_come_in_order_and_end():
    with Prefetch(range(100), 3) as items:
        assert list(items) == list(range(100))
        assert list(items) == []


def test_what_the_source_raises_is_raised_after_what_it_gave():
    def source() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    with Prefetch(source(), 3) as items:
        assert next(items) == 1
        with pytest.raises(ZeroDivisionError):
            next(items)
        assert list(items) == []


def test_the_thread_is_ahead_by_what_it_may_and_no_further():
    made: list[int] = []
    third_made = threading.Event()

    def source() -> Iterator[int]:
        for number in count():
            made.append(number)
            if number == 2:
                third_made.set()
            yield number

    with Prefetch(source(), 2):
        assert third_made.wait(20)  # two wait in the queue, the third in hand
    assert made == [0, 1, 2]


def test_the_thread_ends_with_the_block_though_the_source_goes_on():
    before = threading.active_count()
    with Prefetch(count(), 2) as items:
        next(items)
    assert threading.active_count() == before
