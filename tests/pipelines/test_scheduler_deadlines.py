"""Deadlines: of a child run that never begins, has no heartbeat or does not end, and of a silent server."""

from dataclasses import replace

import pytest

from dgasr.errors import TransientError
from pipelines.child_runs import ChildRequest, ChildStatus
from tests.pipelines.fake_runs import (
    CONFIG,
    DONE,
    QUEUED,
    RUNNING,
    STARTING,
    FakeRuns,
    alive,
    completes,
    schedule,
    unless,
)  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "seen", "since", "until"),
    [
        ("prepare", QUEUED, CONFIG.queue_deadline_s, 1100),
        ("prepare", STARTING, CONFIG.start_deadline_s, CONFIG.queue_deadline_s),
        ("decode", RUNNING, CONFIG.heartbeat_deadline_s, 150),
        ("decode", lambda request, age_s: alive(min(age_s, 30)), 30 + CONFIG.heartbeat_deadline_s, 180),
        ("decode", lambda request, age_s: alive(age_s, num_done=7), CONFIG.stall_deadline_s, 400),
    ],
    ids=["no worker takes it", "it never runs", "it has no heartbeat", "its heartbeat stops", "it gets no further"],
)
def test_a_child_that_misses_a_deadline_is_given_up_and_replaced(stage, seen, since, until):
    runs = FakeRuns(unless(stage, 1, seen))
    assert schedule(runs)[0].num_done == 1
    assert runs.cancelled == [f"{stage}-0-1"]
    begun, again = (runs.children[f"{stage}-0-{attempt}"][1] for attempt in (1, 2))
    assert since < again - begun < until


def test_time_in_the_queue_does_not_count_as_time_to_start():
    def late(request: ChildRequest, age_s: float) -> ChildStatus:
        return QUEUED if age_s < 500 else STARTING if age_s < 580 else completes(request, age_s - 580)

    runs = FakeRuns(unless("prepare", 1, late))
    schedule(runs)
    assert not runs.cancelled


def test_a_child_that_lives_for_hours_is_left_alone_as_long_as_it_gets_further():
    runs = FakeRuns(unless("decode", 1, lambda request, age_s: DONE if age_s > 9000 else alive(age_s)))
    schedule(runs)
    assert not runs.cancelled


def test_a_child_that_does_not_end_when_it_is_asked_to_is_marked_as_crashed_and_replaced():
    runs = FakeRuns(unless("decode", 1, RUNNING), obeys=False)
    assert schedule(runs)[0].num_done == 1
    assert runs.crashed == ["decode-0-1"]
    assert runs.children["decode-0-2"][1] > CONFIG.heartbeat_deadline_s + CONFIG.cancel_deadline_s


def test_a_child_that_was_given_up_and_completes_all_the_same_counts():
    def late(request: ChildRequest, age_s: float) -> ChildStatus:
        return DONE if age_s > 90 else RUNNING

    runs = FakeRuns(unless("decode", 1, late), obeys=False)
    status, _ = schedule(runs)
    assert (status.num_done, status.num_attempts) == (1, 2)


def test_a_decoder_whose_heartbeat_stopped_counts_as_a_dead_one_for_its_shards():
    stuck = replace(RUNNING, sequence=3, shard_ids=("a",))
    runs = FakeRuns(unless("decode", 2, stuck), obeys=False)
    schedule(runs)
    assert runs.submitted[-1].suspects == ("a",)


def test_a_server_that_is_away_for_a_while_costs_no_attempt():
    runs = FakeRuns(lambda request, age_s: DONE if age_s > 400 else alive(age_s))
    runs.silent = lambda now: 100 < now < 250
    status, _ = schedule(runs)
    assert (status.num_done, status.num_attempts) == (1, 2)
    assert not runs.cancelled


def test_lives_that_could_not_be_read_while_the_server_was_away_do_not_count_against_a_child():
    def unread(request: ChildRequest, age_s: float) -> ChildStatus:
        return DONE if age_s > 400 else alive(90 if 90 < age_s < 260 else age_s)

    runs = FakeRuns(unless("prepare", 9, unread))
    runs.silent = lambda now: 100 < now < 250
    schedule(runs)
    assert not runs.cancelled


def test_a_server_that_is_away_for_too_long_ends_the_run():
    runs = FakeRuns(silent=lambda now: now > 15)
    with pytest.raises(TransientError, match="What was committed stays"):
        schedule(runs)
    assert runs.ended_at < 15 + CONFIG.server_deadline_s + 3 * CONFIG.poll_s
