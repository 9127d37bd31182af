"""The conductor over a fake dispatch and a fake clock: a turn takes no time, and children do what a test tells them."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import pytest

from dgasr.errors import ConfigError, IntegrityError, TransientError
from pipelines.conductor import Conductor
from pipelines.course import Planned
from pipelines.dispatch import Condition, Order, Sighting
from pipelines.pools import PoolsConfig
from pipelines.tally import Tally

CONFIG = PoolsConfig(
    mode="pools", poll_s=10, max_prepare_runs=2, max_decode_runs=2, max_staged_bytes=1000, max_attempts=3,
    queue_deadline_s=1000, start_deadline_s=100, beat_deadline_s=60, stall_deadline_s=300, cancel_deadline_s=50,
    server_deadline_s=200,
)  # fmt: skip

DONE = Sighting(condition=Condition.DONE)
CRASHED = Sighting(condition=Condition.LOST, message="killed")
FAILED = Sighting(condition=Condition.FAILED, message="the store does not answer")
QUEUED = Sighting(condition=Condition.QUEUED)
STARTING = Sighting(condition=Condition.STARTING)
RUNNING = Sighting(condition=Condition.RUNNING)

Behaviour = Callable[[Order, float], Sighting]
"""What is seen of a child run so many seconds after it was submitted."""


def completes(order: Order, age_s: float) -> Sighting:
    """A child that runs for 20 s."""
    return DONE if age_s >= 20 else replace(RUNNING, sequence=int(age_s), num_done=int(age_s))


@dataclass
class FakeDispatch:
    """Children that behave as a test says; remembers what it was asked."""

    behaviour: Behaviour = completes
    now: float = 0.0
    called_off: bool = False
    """Whether a person has cancelled the run."""
    obeys: bool = True
    """Whether children end when they are asked to."""
    submitted: list[Order] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    buried: list[str] = field(default_factory=list)
    most_at_once: dict[str, int] = field(default_factory=dict)
    silent: Callable[[float], bool] = lambda now: False
    children: dict[str, tuple[Order, float]] = field(default_factory=dict)
    looks: int = 0

    async def submit(self, order: Order) -> str:
        self._answer()
        self.submitted.append(order)
        handle = f"{order.stage}-{order.number}-{order.attempt}"
        assert handle not in self.children
        self.children[handle] = (order, self.now)
        return handle

    async def look(self, orders: Mapping[str, Order]) -> Mapping[str, Sighting]:
        self._answer()
        self.looks += 1
        for stage in ("prepare", "decode"):
            num = sum(order.stage == stage for order in orders.values())
            self.most_at_once[stage] = max(num, self.most_at_once.get(stage, 0))
        return {handle: self._see(handle) for handle in orders}

    async def cancel(self, handle: str) -> None:
        self._answer()
        self.cancelled.append(handle)

    async def is_called_off(self) -> bool:
        self._answer()
        return self.called_off

    async def bury(self, handle: str) -> None:
        self.buried.append(handle)

    async def sleep(self, duration_s: float) -> None:
        self.now += duration_s
        assert self.now < 1e6, "the conductor never ends"

    def _see(self, handle: str) -> Sighting:
        order, submitted_at = self.children[handle]
        seen = self.behaviour(order, self.now - submitted_at)
        return replace(seen, condition=Condition.LOST) if self.obeys and handle in self.cancelled else seen

    def _answer(self) -> None:
        if self.silent(self.now):
            raise TransientError("connection refused")


def planned(number: int, staged_bytes: int = 100) -> Planned:
    return Planned(uri=f"assignments/{number:05d}.json", number=number, staged_bytes=staged_bytes)


def conduct(
    dispatch: FakeDispatch, num_assignments: int = 1, staged_bytes: int = 100, **settings: int
) -> tuple[Tally, Conductor]:
    conductor = Conductor(dispatch, replace(CONFIG, **settings), now=lambda: dispatch.now, sleep=dispatch.sleep)
    tally = asyncio.run(conductor.conduct([planned(number, staged_bytes) for number in range(num_assignments)]))
    return tally, conductor


def names(orders: list[Order]) -> list[str]:
    return [f"{order.stage}-{order.number}-{order.attempt}" for order in orders]


def unless(stage: str, attempts: int, seen: Sighting | Behaviour) -> Behaviour:
    """Children complete, but for the first attempts of a stage."""

    def behaviour(order: Order, age_s: float) -> Sighting:
        if order.stage == stage and order.attempt <= attempts:
            return seen(order, age_s) if callable(seen) else seen
        return completes(order, age_s)

    return behaviour


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


def beating(age_s: float, num_done: int | None = None) -> Sighting:
    return replace(RUNNING, sequence=int(age_s), num_done=int(age_s) if num_done is None else num_done)


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


def test_shards_that_two_dead_decoders_worked_on_are_isolated():
    working = {1: ("a", "b"), 2: ("b", "c")}

    def dies(order: Order, age_s: float) -> Sighting:
        return replace(CRASHED, shard_ids=working[order.attempt])

    dispatch = FakeDispatch(unless("decode", 2, dies))
    assert conduct(dispatch)[0].num_done == 1
    isolated = {order.attempt: order.isolated for order in dispatch.submitted if order.stage == "decode"}
    assert isolated == {1: (), 2: (), 3: ("b",)}


def test_a_decoder_whose_beat_stopped_counts_as_a_dead_one_for_its_shards():
    stuck = replace(RUNNING, sequence=3, shard_ids=("a",))
    dispatch = FakeDispatch(unless("decode", 2, stuck), obeys=False)
    conduct(dispatch)
    assert dispatch.submitted[-1].isolated == ("a",)


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


def test_a_submission_that_was_not_answered_is_repeated_under_the_same_attempt():
    dispatch = FakeDispatch(silent=lambda now: now < 25)
    conduct(dispatch)
    assert names(dispatch.submitted) == ["prepare-0-1", "decode-0-1"]


def test_a_server_that_is_away_for_too_long_ends_the_run():
    dispatch = FakeDispatch(silent=lambda now: now > 15)
    with pytest.raises(TransientError, match="What was committed stays"):
        conduct(dispatch)
    assert dispatch.now < 15 + CONFIG.server_deadline_s + 3 * CONFIG.poll_s


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
