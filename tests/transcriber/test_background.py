"""Work in the background. Threads wait for events of each other, never for time."""

import threading

import pytest

from dgasr.transcriber.segments import in_background

PATIENCE_S = 30.0


def test_results_come_in_the_items_order():
    assert list(in_background(lambda number: number**2, range(50), limit=3)) == [number**2 for number in range(50)]


def test_the_next_item_is_made_while_work_is_done():
    is_made = threading.Event()

    def items():
        yield 1
        is_made.set()
        yield 2

    def work(item):
        assert item != 1 or is_made.wait(PATIENCE_S), "the second item waits for work on the first"
        return item

    assert list(in_background(work, items(), limit=1)) == [1, 2]


def test_no_more_than_the_limit_is_outstanding():
    may_work, made = threading.Event(), []

    def items():
        for number in range(10):
            made.append(number)
            if len(made) == 4:
                may_work.set()  # three outstanding, and the one that the oldest of them is waited for with
            yield number

    def work(item):
        assert may_work.wait(PATIENCE_S)
        return item

    results = in_background(work, items(), limit=3)
    assert next(results) == 0
    assert made == [0, 1, 2, 3]
    assert list(results) == list(range(1, 10))


def test_what_goes_wrong_is_raised_where_its_result_would_be():
    results = in_background(lambda number: 6 // number, (3, 2, 0, 1), limit=4)
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_who_stops_listening_leaves_no_thread():
    results = in_background(lambda number: number, range(100), limit=2)
    next(results)
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("in-background")]


def test_without_a_limit_to_fill_all_is_done_in_the_callers_thread():
    assert set(in_background(lambda _: threading.get_ident(), range(3), limit=0)) == {threading.get_ident()}
