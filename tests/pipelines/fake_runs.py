"""Child runs that a test invents, in an event loop whose time passes at once."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dgasr.errors import TransientError
from dgasr.stages.plan import ChildRun
from pipelines.child_runs import ChildState, ChildStatus
from pipelines.request import PoolsConfig
from pipelines.scheduler import Planned, RunStatus, Scheduler


class _Instant(selectors.DefaultSelector):
    """Waits for nothing: whatever time is asked for has passed."""

    passed_s = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "everything waits for something that never comes"
        self.passed_s += max(timeout, 0.0)
        assert self.passed_s < 1e6, "the run never ends"
        return super().select(0)


class InstantLoop(asyncio.SelectorEventLoop):
    """An event loop in which sleeping takes no time, and its clock says that it did."""

    def __init__(self) -> None:
        self._instant = _Instant()
        super().__init__(self._instant)

    def time(self) -> float:
        return self._instant.passed_s


def run_instantly(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in such a loop."""
    with asyncio.Runner(loop_factory=InstantLoop) as runner:
        return runner.run(coroutine)


CONFIG = PoolsConfig(
    mode="pools", poll_s=10, max_prepare_runs=2, max_decode_runs=2, max_staged_bytes=1000, max_attempts=3,
    queue_deadline_s=1000, start_deadline_s=100, heartbeat_deadline_s=60, stall_deadline_s=300, cancel_deadline_s=50,
    server_deadline_s=200,
)  # fmt: skip

DONE = ChildStatus(state=ChildState.DONE)
CRASHED = ChildStatus(state=ChildState.LOST, message="killed")
FAILED = ChildStatus(state=ChildState.FAILED, message="the store does not answer")
QUEUED = ChildStatus(state=ChildState.QUEUED)
STARTING = ChildStatus(state=ChildState.STARTING)
RUNNING = ChildStatus(state=ChildState.RUNNING)

Behaviour = Callable[[ChildRun, float], ChildStatus]
"""What is seen of a child run so many seconds after it was submitted."""


def completes(request: ChildRun, age_s: float) -> ChildStatus:
    """A child that runs for 20 s."""
    return DONE if age_s >= 20 else replace(RUNNING, sequence=int(age_s), num_done=int(age_s))


@dataclass
class FakeRuns:
    """Children that behave as a test says; remembers what it was asked."""

    behaviour: Behaviour = completes
    is_cancelled_by_person: bool = False
    """Whether a person has cancelled the run."""
    obeys: bool = True
    """Whether children end when they are asked to."""
    submitted: list[ChildRun] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    crashed: list[str] = field(default_factory=list)
    most_at_once: dict[str, int] = field(default_factory=dict)
    silent: Callable[[float], bool] = lambda now: False
    children: dict[str, tuple[ChildRun, float]] = field(default_factory=dict)
    looks: int = 0
    ended_at: float = 0.0

    @property
    def now(self) -> float:
        """The loop's time, s."""
        return asyncio.get_running_loop().time()

    async def submit(self, request: ChildRun) -> str:
        self._answer()
        self.submitted.append(request)
        child_id = f"{request.stage}-{request.number}-{request.attempt}"
        assert child_id not in self.children
        self.children[child_id] = (request, self.now)
        return child_id

    async def look(self, requests: Mapping[str, ChildRun]) -> Mapping[str, ChildStatus]:
        self._answer()
        self.looks += 1
        for stage in ("prepare", "decode"):
            num = sum(request.stage == stage for request in requests.values())
            self.most_at_once[stage] = max(num, self.most_at_once.get(stage, 0))
        return {child_id: self._see(child_id) for child_id in requests}

    async def cancel(self, child_id: str) -> None:
        self._answer()
        self.cancelled.append(child_id)

    async def is_cancelled(self) -> bool:
        self._answer()
        return self.is_cancelled_by_person

    async def mark_crashed(self, child_id: str) -> None:
        self.crashed.append(child_id)

    def _see(self, child_id: str) -> ChildStatus:
        request, submitted_at = self.children[child_id]
        seen = self.behaviour(request, self.now - submitted_at)
        return replace(seen, state=ChildState.LOST) if self.obeys and child_id in self.cancelled else seen

    def _answer(self) -> None:
        if self.silent(self.now):
            raise TransientError("connection refused")


def planned(number: int, staged_bytes: int = 100) -> Planned:
    return Planned(uri=f"assignments/{number:05d}.json", number=number, staged_bytes=staged_bytes)


def schedule(
    runs: FakeRuns, num_assignments: int = 1, staged_bytes: int = 100, **settings: int
) -> tuple[RunStatus, Scheduler]:
    async def work() -> tuple[RunStatus, Scheduler]:
        scheduler = Scheduler(runs, replace(CONFIG, **settings))
        try:
            status = await scheduler.run([planned(number, staged_bytes) for number in range(num_assignments)])
        finally:
            runs.ended_at = runs.now
        return status, scheduler

    return run_instantly(work())


def names(requests: list[ChildRun]) -> list[str]:
    return [f"{request.stage}-{request.number}-{request.attempt}" for request in requests]


def unless(stage: str, attempts: int, seen: ChildStatus | Behaviour) -> Behaviour:
    """Children complete, but for the first attempts of a stage."""

    def behaviour(request: ChildRun, age_s: float) -> ChildStatus:
        if request.stage == stage and request.attempt <= attempts:
            return seen(request, age_s) if callable(seen) else seen
        return completes(request, age_s)

    return behaviour


def alive(age_s: float, num_done: int | None = None) -> ChildStatus:
    return replace(RUNNING, sequence=int(age_s), num_done=int(age_s) if num_done is None else num_done)
