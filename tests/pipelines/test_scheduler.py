"""The scheduler over invented child runs: their order and number, what follows when one ends, dies or is late."""

import asyncio
from dataclasses import replace

import pytest

from dgasr.errors import ConfigError, IntegrityError, TransientError
from dgasr.stages.plan import ChildRun
from pipelines.child_runs import ChildState, ChildStatus
from pipelines.scheduler import RunStatus, Scheduler
from tests.pipelines.fake_runs import (
    CONFIG,
    CRASHED,
    DONE,
    FAILED,
    QUEUED,
    RUNNING,
    STARTING,
    FakeRuns,
    alive,
    completes,
    names,
    planned,
    run_instantly,
    schedule,
    unless,
)  # fmt: skip


def test_each_assignment_is_prepared_and_then_decoded():
    runs = FakeRuns()
    status, scheduler = schedule(runs, 3)
    assert (status.num_done, status.num_failed, status.num_attempts) == (3, 0, 6)
    assert not scheduler.failures
    for number in range(3):
        mine = [request.stage for request in runs.submitted if request.number == number]
        assert mine == ["prepare", "decode"]


def test_a_decoder_begins_as_soon_as_its_own_assignment_is_prepared():
    slow = unless(
        "prepare", 9, lambda request, age_s: DONE if age_s >= (20 if request.number == 0 else 200) else RUNNING
    )
    runs = FakeRuns(slow)
    schedule(runs, 2, heartbeat_deadline_s=1000)
    assert runs.children["decode-0-1"][1] == 20
    assert runs.children["decode-1-1"][1] == 200


def test_no_more_child_runs_are_at_work_than_is_allowed():
    runs = FakeRuns()
    schedule(runs, 9, max_prepare_runs=3, max_decode_runs=1)
    assert runs.most_at_once == {"prepare": 3, "decode": 1}


def test_features_wait_for_decoders_only_up_to_so_many_bytes():
    runs, most = FakeRuns(unless("decode", 9, lambda request, age_s: DONE if age_s >= 500 else alive(age_s))), 0

    async def count(status: RunStatus) -> None:
        nonlocal most
        most = max(most, status.num_preparing + status.num_prepared + status.num_decoding)

    async def work() -> None:
        await Scheduler(runs, CONFIG, on_turn=count).run([planned(number, 400) for number in range(5)])

    run_instantly(work())
    assert most == 2  # 400 + 400 bytes; a third would make 1200


def test_an_assignment_larger_than_the_bound_goes_alone():
    runs = FakeRuns()
    assert schedule(runs, 3, staged_bytes=5000)[0].num_done == 3
    assert names(runs.submitted)[:3] == ["prepare-0-1", "decode-0-1", "prepare-1-1"]


@pytest.mark.parametrize("stage", ["prepare", "decode"])
def test_a_child_that_crashed_is_submitted_again_under_the_next_attempt(stage: str):
    runs = FakeRuns(unless(stage, 1, CRASHED))
    status, _ = schedule(runs)
    assert status.num_done == 1
    assert [request.attempt for request in runs.submitted if request.stage == stage] == [1, 2]
    assert not runs.cancelled


@pytest.mark.parametrize(("seen", "following"), [(FAILED, ["prepare-0-2", "decode-0-2"]), (CRASHED, ["decode-0-2"])])
def test_a_decoder_that_failed_has_its_features_prepared_again_and_one_that_died_goes_on_from_them(seen, following):
    runs = FakeRuns(unless("decode", 1, seen))
    assert schedule(runs)[0].num_done == 1
    assert names(runs.submitted) == ["prepare-0-1", "decode-0-1", *following]


@pytest.mark.parametrize(("stage", "last"), [("prepare", CRASHED), ("decode", CRASHED), ("decode", FAILED)])
def test_an_assignment_is_given_up_after_its_attempts_and_the_others_go_on(stage: str, last: ChildStatus):
    def behaviour(request: ChildRun, age_s: float) -> ChildStatus:
        return last if request.number == 1 and request.stage == stage else completes(request, age_s)

    runs = FakeRuns(behaviour)
    status, scheduler = schedule(runs, 4)
    assert (status.num_done, status.num_failed) == (3, 1)
    assert scheduler.failures == {1: last.message}
    assert max(request.attempt for request in runs.submitted) == CONFIG.max_attempts


def test_shards_that_two_dead_decoders_worked_on_are_suspects():
    working = {1: ("a", "b"), 2: ("b", "c")}

    def dies(request: ChildRun, age_s: float) -> ChildStatus:
        return replace(CRASHED, shard_ids=working[request.attempt])

    runs = FakeRuns(unless("decode", 2, dies))
    assert schedule(runs)[0].num_done == 1
    suspects = {request.attempt: request.suspects for request in runs.submitted if request.stage == "decode"}
    assert suspects == {1: (), 2: (), 3: ("b",)}


def test_a_shard_that_kills_decoders_alone_too_is_rejected_and_costs_no_more_attempts():
    runs = FakeRuns(unless("decode", 5, replace(CRASHED, shard_ids=("b",))))
    status, _ = schedule(runs, max_attempts=3)
    assert (status.num_done, status.num_failed) == (1, 0)
    asked = [(request.suspects, request.rejected) for request in runs.submitted if request.stage == "decode"]
    assert asked == [((), ()), ((), ()), *[(("b",), ())] * 3, ((), ("b",))]


def test_a_decoder_that_dies_whatever_it_decodes_is_given_up():
    runs = FakeRuns(unless("decode", 99, replace(CRASHED, shard_ids=("a", "b"))))
    status, scheduler = schedule(runs)
    assert (status.num_failed, scheduler.failures) == (1, {0: "killed"})
    assert len(runs.submitted) < 10


@pytest.mark.parametrize(
    ("state", "error"), [(ChildState.REFUSED, ConfigError), (ChildState.CONTRADICTED, IntegrityError)]
)
def test_a_child_that_only_a_person_can_help_ends_the_run_and_the_other_children(
    state: ChildState, error: type[Exception]
):
    refuses = unless("prepare", 9, lambda request, age_s: ChildStatus(state=state, message="no such model"))
    runs = FakeRuns(lambda request, age_s: refuses(request, age_s) if request.number == 0 else RUNNING)
    with pytest.raises(error, match=r"assignment 0.*no such model"):
        schedule(runs, 5)
    assert runs.cancelled == ["prepare-1-1"]
    assert len(runs.submitted) == 2


def test_a_submission_that_was_not_answered_is_repeated_under_the_same_attempt():
    runs = FakeRuns(silent=lambda now: now < 25)
    schedule(runs)
    assert names(runs.submitted) == ["prepare-0-1", "decode-0-1"]


def test_one_question_a_turn_whatever_the_number_of_children():
    runs = FakeRuns()
    schedule(runs, 40, max_prepare_runs=20, max_decode_runs=20, staged_bytes=1)
    assert runs.looks == runs.ended_at / CONFIG.poll_s


def end_while_it_runs(runs: FakeRuns) -> None:
    """Cancel the scheduler's task, as asyncio does when the process gets SIGTERM, while two child runs run."""

    async def work() -> None:
        task = asyncio.create_task(Scheduler(runs, CONFIG).run([planned(0), planned(1)]))
        while len(runs.submitted) < 2:
            await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        run_instantly(work())


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_children_of_a_cancelled_run_are_asked_to_end_at_once(is_cancelled: bool):
    """And those of a run whose worker is stopped go on."""
    runs = FakeRuns(is_cancelled_by_person=is_cancelled)
    end_while_it_runs(runs)
    assert len(runs.submitted) == 2
    assert runs.cancelled == (names(runs.submitted) if is_cancelled else [])


def test_children_go_on_where_the_signal_that_stops_the_worker_comes_while_a_coroutine_runs():
    class Signal(BaseException):
        """As Prefect raises it."""

    async def interrupt(status: RunStatus) -> None:
        raise Signal

    async def work(runs: FakeRuns) -> None:
        await Scheduler(runs, CONFIG, on_turn=interrupt).run([planned(0)])

    runs = FakeRuns()
    with pytest.raises(Signal):
        run_instantly(work(runs))
    assert (len(runs.submitted), runs.cancelled) == (1, [])


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
    def late(request: ChildRun, age_s: float) -> ChildStatus:
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
    def late(request: ChildRun, age_s: float) -> ChildStatus:
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
    def unread(request: ChildRun, age_s: float) -> ChildStatus:
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
