"""Child runs that a test invents, with a clock of their own: a turn of the conductor takes no time."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from dgasr.errors import TransientError
from pipelines.request import PoolsConfig
from pipelines.scheduler import Condition, Conductor, Order, Planned, Sighting, Tally

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


def beating(age_s: float, num_done: int | None = None) -> Sighting:
    return replace(RUNNING, sequence=int(age_s), num_done=int(age_s) if num_done is None else num_done)
