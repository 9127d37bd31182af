"""The conductor's patience: with a child run that never begins, stops beating or does not end, and with the server."""

from dataclasses import replace

import pytest

from dgasr.errors import TransientError
from pipelines.scheduler import Order, Sighting
from tests.pipelines.fake_dispatch import (
    CONFIG,
    DONE,
    QUEUED,
    RUNNING,
    STARTING,
    FakeDispatch,
    beating,
    completes,
    conduct,
    unless,
)  # fmt: skip


def test_a_child_that_no_worker_takes_is_only_submitted_again_after_long():
    dispatch = FakeDispatch(unless("prepare", 1, QUEUED))
    assert conduct(dispatch)[0].num_done == 1
    assert dispatch.cancelled == ["prepare-0-1"]
    assert dispatch.children["prepare-0-2"][1] > CONFIG.queue_deadline_s


def test_a_child_that_a_worker_took_and_that_never_runs_is_given_up():
    dispatch = FakeDispatch(unless("prepare", 1, STARTING))
    assert conduct(dispatch)[0].num_done == 1
    assert dispatch.cancelled == ["prepare-0-1"]
    assert CONFIG.start_deadline_s < dispatch.children["prepare-0-2"][1] < CONFIG.queue_deadline_s


def test_time_in_the_queue_does_not_count_as_time_to_start():
    def late(order: Order, age_s: float) -> Sighting:
        return QUEUED if age_s < 500 else STARTING if age_s < 580 else completes(order, age_s - 580)

    dispatch = FakeDispatch(unless("prepare", 1, late))
    conduct(dispatch)
    assert not dispatch.cancelled


def test_a_child_whose_beat_stops_is_given_up():
    dispatch = FakeDispatch(unless("decode", 1, lambda order, age_s: beating(min(age_s, 30))))
    assert conduct(dispatch)[0].num_done == 1
    assert dispatch.cancelled == ["decode-0-1"]


def test_a_child_that_never_beats_is_given_up():
    dispatch = FakeDispatch(unless("decode", 1, RUNNING))
    conduct(dispatch)
    assert dispatch.cancelled == ["decode-0-1"]


def test_a_child_that_beats_for_hours_is_left_alone_as_long_as_it_gets_further():
    dispatch = FakeDispatch(unless("decode", 1, lambda o, age_s: DONE if age_s > 9000 else beating(age_s)))
    conduct(dispatch)
    assert not dispatch.cancelled


def test_a_child_that_beats_but_gets_no_further_is_given_up():
    dispatch = FakeDispatch(unless("decode", 1, lambda order, age_s: beating(age_s, num_done=7)))
    assert conduct(dispatch)[0].num_done == 1
    assert dispatch.cancelled == ["decode-0-1"]


def test_a_child_that_does_not_end_when_it_is_asked_to_is_buried_and_replaced():
    dispatch = FakeDispatch(unless("decode", 1, RUNNING), obeys=False)
    assert conduct(dispatch)[0].num_done == 1
    assert dispatch.buried == ["decode-0-1"]
    assert dispatch.children["decode-0-2"][1] > CONFIG.beat_deadline_s + CONFIG.cancel_deadline_s


def test_a_child_that_was_given_up_and_completes_all_the_same_counts():
    def late(order: Order, age_s: float) -> Sighting:
        return DONE if age_s > 90 else RUNNING

    dispatch = FakeDispatch(unless("decode", 1, late), obeys=False)
    tally, _ = conduct(dispatch)
    assert (tally.num_done, tally.num_attempts) == (1, 2)


def test_a_decoder_whose_beat_stopped_counts_as_a_dead_one_for_its_shards():
    stuck = replace(RUNNING, sequence=3, shard_ids=("a",))
    dispatch = FakeDispatch(unless("decode", 2, stuck), obeys=False)
    conduct(dispatch)
    assert dispatch.submitted[-1].isolated == ("a",)


def test_a_server_that_is_away_for_a_while_costs_no_attempt():
    dispatch = FakeDispatch(lambda order, age_s: DONE if age_s > 400 else beating(age_s))
    dispatch.silent = lambda now: 100 < now < 250
    tally, _ = conduct(dispatch)
    assert (tally.num_done, tally.num_attempts) == (1, 2)
    assert not dispatch.cancelled


def test_beats_that_could_not_be_read_while_the_server_was_away_do_not_count_against_a_child():
    def unread(order: Order, age_s: float) -> Sighting:
        return DONE if age_s > 400 else beating(90 if 90 < age_s < 260 else age_s)

    dispatch = FakeDispatch(unless("prepare", 9, unread))
    dispatch.silent = lambda now: 100 < now < 250
    conduct(dispatch)
    assert not dispatch.cancelled


def test_a_server_that_is_away_for_too_long_ends_the_run():
    dispatch = FakeDispatch(silent=lambda now: now > 15)
    with pytest.raises(TransientError, match="What was committed stays"):
        conduct(dispatch)
    assert dispatch.now < 15 + CONFIG.server_deadline_s + 3 * CONFIG.poll_s
