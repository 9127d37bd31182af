"""The conductor over invented child runs: in which order, how many at once, what follows when one ends or dies."""

import asyncio
from dataclasses import replace

import pytest

from dgasr.errors import ConfigError, IntegrityError
from pipelines.scheduler import Condition, Conductor, Order, Sighting, Tally
from tests.pipelines.fake_dispatch import (
    CONFIG,
    CRASHED,
    DONE,
    FAILED,
    RUNNING,
    FakeDispatch,
    beating,
    completes,
    conduct,
    names,
    planned,
    unless,
)  # fmt: skip


def test_each_assignment_is_prepared_and_then_decoded():
    dispatch = FakeDispatch()
    tally, conductor = conduct(dispatch, 3)
    assert (tally.num_done, tally.num_failed, tally.num_attempts) == (3, 0, 6)
    assert not conductor.failures
    for number in range(3):
        mine = [order.stage for order in dispatch.submitted if order.number == number]
        assert mine == ["prepare", "decode"]


def test_nothing_to_do_asks_nobody():
    dispatch = FakeDispatch()
    assert conduct(dispatch, 0)[0].num_assignments == 0
    assert not dispatch.looks


def test_a_decoder_begins_as_soon_as_its_own_assignment_is_prepared():
    slow = unless("prepare", 9, lambda order, age_s: DONE if age_s >= (20 if order.number == 0 else 200) else RUNNING)
    dispatch = FakeDispatch(slow)
    conduct(dispatch, 2, beat_deadline_s=1000)
    assert dispatch.children["decode-0-1"][1] == 20
    assert dispatch.children["decode-1-1"][1] == 200


def test_no_more_child_runs_are_at_work_than_is_allowed():
    dispatch = FakeDispatch()
    conduct(dispatch, 9, max_prepare_runs=3, max_decode_runs=1)
    assert dispatch.most_at_once == {"prepare": 3, "decode": 1}


def test_features_wait_for_decoders_only_up_to_so_many_bytes():
    dispatch, most = FakeDispatch(unless("decode", 9, lambda o, age_s: DONE if age_s >= 500 else beating(age_s))), 0

    async def count(tally: Tally) -> None:
        nonlocal most
        most = max(most, tally.num_preparing + tally.num_prepared + tally.num_decoding)

    conductor = Conductor(dispatch, CONFIG, now=lambda: dispatch.now, sleep=dispatch.sleep, on_turn=count)
    asyncio.run(conductor.conduct([planned(number, 400) for number in range(5)]))
    assert most == 2  # 400 + 400 bytes; a third would make 1200


def test_an_assignment_larger_than_the_bound_goes_alone():
    dispatch = FakeDispatch()
    assert conduct(dispatch, 3, staged_bytes=5000)[0].num_done == 3
    assert names(dispatch.submitted)[:3] == ["prepare-0-1", "decode-0-1", "prepare-1-1"]


@pytest.mark.parametrize("stage", ["prepare", "decode"])
def test_a_child_that_crashed_is_submitted_again_under_the_next_attempt(stage: str):
    dispatch = FakeDispatch(unless(stage, 1, CRASHED))
    tally, _ = conduct(dispatch)
    assert tally.num_done == 1
    assert [order.attempt for order in dispatch.submitted if order.stage == stage] == [1, 2]
    assert not dispatch.cancelled


def test_a_decoder_that_failed_has_its_features_prepared_again():
    dispatch = FakeDispatch(unless("decode", 1, FAILED))
    assert conduct(dispatch)[0].num_done == 1
    assert names(dispatch.submitted) == ["prepare-0-1", "decode-0-1", "prepare-0-2", "decode-0-2"]


def test_a_decoder_that_died_goes_on_from_the_features_that_lie_there():
    dispatch = FakeDispatch(unless("decode", 1, CRASHED))
    conduct(dispatch)
    assert names(dispatch.submitted) == ["prepare-0-1", "decode-0-1", "decode-0-2"]


@pytest.mark.parametrize(("stage", "last"), [("prepare", CRASHED), ("decode", CRASHED), ("decode", FAILED)])
def test_an_assignment_is_given_up_after_its_attempts_and_the_others_go_on(stage: str, last: Sighting):
    def behaviour(order: Order, age_s: float) -> Sighting:
        return last if order.number == 1 and order.stage == stage else completes(order, age_s)

    dispatch = FakeDispatch(behaviour)
    tally, conductor = conduct(dispatch, 4)
    assert (tally.num_done, tally.num_failed) == (3, 1)
    assert conductor.failures == {1: last.message}
    assert max(order.attempt for order in dispatch.submitted) == CONFIG.max_attempts


def test_shards_that_two_dead_decoders_worked_on_are_isolated():
    working = {1: ("a", "b"), 2: ("b", "c")}

    def dies(order: Order, age_s: float) -> Sighting:
        return replace(CRASHED, shard_ids=working[order.attempt])

    dispatch = FakeDispatch(unless("decode", 2, dies))
    assert conduct(dispatch)[0].num_done == 1
    isolated = {order.attempt: order.isolated for order in dispatch.submitted if order.stage == "decode"}
    assert isolated == {1: (), 2: (), 3: ("b",)}


@pytest.mark.parametrize(
    ("condition", "error"), [(Condition.REFUSED, ConfigError), (Condition.CONTRADICTED, IntegrityError)]
)
def test_a_child_that_only_a_person_can_help_ends_the_run_and_the_other_children(
    condition: Condition, error: type[Exception]
):
    refuses = unless("prepare", 9, lambda o, age_s: Sighting(condition=condition, message="no such model"))
    dispatch = FakeDispatch(lambda o, age_s: refuses(o, age_s) if o.number == 0 else RUNNING)
    with pytest.raises(error, match=r"assignment 0.*no such model"):
        conduct(dispatch, 5)
    assert dispatch.cancelled == ["prepare-1-1"]
    assert len(dispatch.submitted) == 2


def test_a_submission_that_was_not_answered_is_repeated_under_the_same_attempt():
    dispatch = FakeDispatch(silent=lambda now: now < 25)
    conduct(dispatch)
    assert names(dispatch.submitted) == ["prepare-0-1", "decode-0-1"]


def test_one_question_a_turn_whatever_the_number_of_children():
    dispatch = FakeDispatch()
    conduct(dispatch, 40, max_prepare_runs=20, max_decode_runs=20, staged_bytes=1)
    assert dispatch.looks == dispatch.now / CONFIG.poll_s


def test_a_tally_says_in_one_line_how_far_the_run_is():
    tally = conduct(FakeDispatch(unless("prepare", 3, CRASHED)), 1)[0]
    assert tally.line().startswith("0 of 1 assignments done, 1 given up")


def end_while_it_runs(dispatch: FakeDispatch) -> None:
    """Cancel the conductor's task, as asyncio does when the process gets SIGTERM, while two children run."""

    async def work() -> None:
        async def sleep(duration_s: float) -> None:
            await asyncio.Event().wait()

        conductor = Conductor(dispatch, CONFIG, now=lambda: dispatch.now, sleep=sleep)
        task = asyncio.create_task(conductor.conduct([planned(0), planned(1)]))
        while len(dispatch.submitted) < 2:
            await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(work())


def test_children_of_a_cancelled_run_are_asked_to_end_at_once():
    dispatch = FakeDispatch(called_off=True)
    end_while_it_runs(dispatch)
    assert dispatch.cancelled == names(dispatch.submitted)


def test_children_of_a_run_whose_worker_is_stopped_go_on():
    dispatch = FakeDispatch()
    end_while_it_runs(dispatch)
    assert (len(dispatch.submitted), dispatch.cancelled) == (2, [])
