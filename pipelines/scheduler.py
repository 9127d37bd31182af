"""Takes a run's assignments through the work pools: prepare, then decode, each as a child run that may die at any time.

One loop, one question to the server per turn. What a child run did lies in the lake and in the store; here only how it
stands is known. A child run that crashed, never started, or stopped beating is ended and submitted anew.
"""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

from dgasr.errors import ConfigError, IntegrityError, TransientError
from dgasr.stages.plan import Stage
from pipelines.request import PoolsConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """How far a run is; numbers of assignments but for the last."""

    num_assignments: int
    num_done: int
    num_failed: int
    """Given up after all their attempts; the next run takes them up again."""
    num_preparing: int
    num_prepared: int
    """Staged and waiting for a decoder."""
    num_decoding: int
    num_attempts: int
    """Child runs that were submitted so far."""

    def line(self) -> str:
        """Say it in one line."""
        failed = f", {self.num_failed} given up" if self.num_failed else ""
        return (
            f"{self.num_done} of {self.num_assignments} assignments done{failed}; {self.num_preparing} being read, "
            f"{self.num_prepared} waiting for a decoder, {self.num_decoding} being decoded"
        )


class Condition(StrEnum):
    """How a child run stands."""

    QUEUED = "queued"
    """No worker took it yet."""
    STARTING = "starting"
    """A worker took it; its process does not run yet."""
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    """It ended with an error that may not come again."""
    LOST = "lost"
    """It crashed, was cancelled, or nobody knows it any more."""
    REFUSED = "refused"
    """The request is wrong, for this child and every other: a person must act."""
    CONTRADICTED = "contradicted"
    """Lake, model or recipe contradict each other: nothing more may be written."""

    @property
    def is_final(self) -> bool:
        """Whether nothing more comes of it."""
        return self not in (Condition.QUEUED, Condition.STARTING, Condition.RUNNING)


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """A child run to be started; stage, number and attempt name it within its run."""

    stage: Stage
    number: int
    attempt: int
    assignment_uri: str
    isolated: tuple[str, ...] = ()
    """Shards that cost decoders before and are decoded in a process of their own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sighting:
    """What was seen of a child run at one moment."""

    condition: Condition
    message: str = ""
    """What its state says, for a person."""
    sequence: int = -1
    """Number of its last beat; -1 before the first."""
    num_done: int = 0
    """How far it says it is; only compared with what it said before."""
    shard_ids: tuple[str, ...] = ()
    """Shards it was working on at its last beat."""


class Dispatch(Protocol):
    """Starts child runs and looks after them. Every call raises `TransientError` where the server does not answer."""

    async def submit(self, order: Order) -> str:
        """Start a child run and return its handle; the same order twice is one child run."""
        ...

    async def look(self, orders: Mapping[str, Order]) -> Mapping[str, Sighting]:
        """Say how child runs stand, by handle."""
        ...

    async def cancel(self, handle: str) -> None:
        """Ask a child run to end."""
        ...

    async def is_called_off(self) -> bool:
        """Say whether a person has cancelled the parent run; one that is only stopped leaves its children to work."""
        ...

    async def bury(self, handle: str) -> None:
        """Mark a child run that does not end as crashed, so that it holds no slot any more."""
        ...


DEATHS_THAT_ISOLATE = 2
"""Decoders that may die over a shard before it is decoded in a process of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """An assignment that waits to be done."""

    uri: str
    number: int
    staged_bytes: int
    """Estimated size of its features in the store."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Worked:
    """What came of a run's assignments, as far as the lake cannot know it."""

    failures: tuple[str, ...] = ()
    """What was given up, one line for each assignment."""
    num_attempts: int | None = None
    """Child runs that were submitted; `None` where there were none to submit."""
    busy_share: float | None = None
    """Share of the time in which the model had work; `None` where child runs say it themselves."""


@dataclass(kw_only=True, slots=True)
class Course:
    """How far an assignment is, and what it cost so far."""

    planned: Planned
    attempts: Counter[Stage] = field(default_factory=Counter)
    deaths: Counter[str] = field(default_factory=Counter)
    """Decoders that died while they worked on a shard, by shard id."""

    def order(self, stage: Stage) -> Order:
        """Say what its next child run is; asking again says the same until `begin` is called."""
        isolated = sorted(shard for shard, deaths in self.deaths.items() if deaths >= DEATHS_THAT_ISOLATE)
        return Order(
            stage=stage,
            number=self.planned.number,
            attempt=self.attempts[stage] + 1,
            assignment_uri=self.planned.uri,
            isolated=tuple(isolated) if stage == "decode" else (),
        )

    def begin(self, order: Order) -> None:
        """Note that a child run was submitted."""
        self.attempts[order.stage] = order.attempt


@dataclass(kw_only=True, slots=True)
class Child:
    """A child run as the conductor sees it. Only the conductor's own clock counts: machines may disagree on the time.

    Attributes:
        course: the assignment that it works on.
        order: what was submitted.
        changed_at: when its condition last changed.
        beaten_at: when its last beat was seen first.
        advanced_at: when it was last seen to get further.
        seen: the last sighting.
        given_up: why it is no longer wanted, or "".
        given_up_at: when it was asked to end.
    """

    course: Course
    order: Order
    changed_at: float
    beaten_at: float = 0.0
    advanced_at: float = 0.0
    seen: Sighting = field(default_factory=lambda: Sighting(condition=Condition.QUEUED))
    given_up: str = ""
    given_up_at: float = 0.0

    def see(self, sighting: Sighting, now: float) -> None:
        """Take note of how it stands."""
        if sighting.condition != self.seen.condition:
            self.changed_at = self.beaten_at = self.advanced_at = now
        if sighting.sequence != self.seen.sequence:
            self.beaten_at = now
        if sighting.num_done != self.seen.num_done:
            self.advanced_at = now
        self.seen = sighting

    def forgive(self, blind_s: float) -> None:
        """Leave out of all deadlines a time in which nothing could be seen of it, s."""
        self.changed_at += blind_s
        self.beaten_at += blind_s
        self.advanced_at += blind_s
        self.given_up_at += blind_s

    def overdue(self, config: PoolsConfig, now: float) -> str:
        """Say which deadline it has missed; "" for none."""
        for condition, since, limit_s, reason in (
            (Condition.QUEUED, self.changed_at, config.queue_deadline_s, "no worker took it"),
            (Condition.STARTING, self.changed_at, config.start_deadline_s, "its process never began to run"),
            (Condition.RUNNING, self.beaten_at, config.beat_deadline_s, "its beat stopped"),
            (Condition.RUNNING, self.advanced_at, config.stall_deadline_s, "it beats but gets no further"),
        ):
            if self.seen.condition == condition and now - since > limit_s:
                return f"{reason} for {now - since:.0f} s"
        return ""


logger = logging.getLogger(__name__)

FAREWELL_S = 15.0
"""How long a run that is told to end may take to tell its children, s; its process is killed after 30 s."""


async def _ignore(tally: Tally) -> None:
    """Tell nobody."""


class Conductor:
    """Sees assignments through."""

    def __init__(
        self,
        dispatch: Dispatch,
        config: PoolsConfig,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_turn: Callable[[Tally], Awaitable[None]] = _ignore,
    ) -> None:
        """Get ready.

        Args:
            dispatch: starts child runs and looks after them.
            config: limits and deadlines.
            now: a clock that never goes back, s.
            sleep: waits for so many seconds.
            on_turn: told how far the run is after every turn.
        """
        self._dispatch = dispatch
        self._config = config
        self._now = now
        self._sleep = sleep
        self._on_turn = on_turn
        self._fresh: deque[Course] = deque()
        self._prepared: deque[Course] = deque()
        self._children: dict[str, Child] = {}
        self._warned: set[str] = set()
        self._num_assignments = self._num_done = self._num_attempts = 0
        self._silent_since: float | None = None
        self.failures: dict[int, str] = {}
        """Assignments that were given up, by number, with what happened last."""

    async def conduct(self, assignments: Sequence[Planned]) -> Tally:
        """See every assignment through, or give it up.

        Returns:
            How it ended; `failures` says why for those that were given up.

        Raises:
            ConfigError: a child run says that the request is wrong; the others were asked to end.
            IntegrityError: a child run found a contradiction; likewise.
            TransientError: the server was silent for too long; child runs that run go on and commit what they finish.
            CancelledError: the run is told to end; its children were asked to, where a person has cancelled it.
        """
        self._fresh.extend(Course(planned=planned) for planned in assignments)
        self._num_assignments = len(self._fresh)
        try:
            while self._fresh or self._prepared or self._children:
                await self._turn()
        except TransientError:
            raise
        except Exception:
            await self._end_all()
            raise
        except asyncio.CancelledError:  # this process is told to end
            await self._end_all_if_called_off()
            raise
        return self.tally()

    def tally(self) -> Tally:
        """Count how far the run is."""
        stages = [child.order.stage for child in self._children.values()]
        return Tally(
            num_assignments=self._num_assignments,
            num_done=self._num_done,
            num_failed=len(self.failures),
            num_preparing=stages.count("prepare"),
            num_prepared=len(self._prepared),
            num_decoding=stages.count("decode"),
            num_attempts=self._num_attempts,
        )

    async def _turn(self) -> None:
        """Submit what fits, wait, and look; a silent server only makes turns longer, up to its deadline."""
        began_at = self._now()
        try:
            await self._submit_what_fits()
            await self._sleep(self._config.poll_s)
            await self._look()
        except TransientError as error:
            self._silent_since = began_at if self._silent_since is None else self._silent_since
            silent_s = self._now() - self._silent_since
            if silent_s > self._config.server_deadline_s:
                raise TransientError(
                    f"no answer for {silent_s:.0f} s ({error}). What was committed stays; the next run goes on there."
                ) from error
            logger.warning("no answer for %.0f s, going on: %s", silent_s, error)
            await self._sleep(self._config.poll_s)
            for child in self._children.values():
                child.forgive(self._now() - began_at)
            return
        self._silent_since = None
        await self._on_turn(self.tally())

    async def _submit_what_fits(self) -> None:
        """Fill the slots: what is staged first, since it takes space."""
        while self._prepared and self._num("decode") < self._config.max_decode_runs:
            await self._submit(self._prepared[0], "decode")
            self._prepared.popleft()
        while self._fresh and self._num("prepare") < self._config.max_prepare_runs and self._has_space():
            await self._submit(self._fresh[0], "prepare")
            self._fresh.popleft()

    def _num(self, stage: Stage) -> int:
        return sum(child.order.stage == stage for child in self._children.values())

    def _has_space(self) -> bool:
        """Say whether the next assignment's features may be staged; one assignment always may."""
        staged = [*(course for course in self._prepared), *(child.course for child in self._children.values())]
        taken = sum(course.planned.staged_bytes for course in staged)
        return not staged or taken + self._fresh[0].planned.staged_bytes <= self._config.max_staged_bytes

    async def _submit(self, course: Course, stage: Stage) -> None:
        order = course.order(stage)
        handle = await self._dispatch.submit(order)
        course.begin(order)
        self._num_attempts += 1
        self._children[handle] = Child(course=course, order=order, changed_at=self._now())

    async def _look(self) -> None:
        """See how the child runs stand and draw the consequences."""
        if not self._children:
            return
        sightings = await self._dispatch.look({handle: child.order for handle, child in self._children.items()})
        for handle, child in list(self._children.items()):
            child.see(sightings[handle], self._now())
            if child.seen.condition.is_final:
                del self._children[handle]
                self._conclude(child)
            elif child.given_up:
                await self._insist(handle, child)
            elif reason := child.overdue(self._config, self._now()):
                await self._dispatch.cancel(handle)
                logger.warning("%s: %s; it is asked to end", _name(child), reason)
                child.given_up, child.given_up_at = reason, self._now()
            else:
                self._warn_of_queue(handle, child)

    def _conclude(self, child: Child) -> None:
        """Decide what follows from a child run that ended."""
        course, seen = child.course, child.seen
        if seen.condition == Condition.REFUSED:
            raise ConfigError(f"{_name(child)}: {seen.message}")
        if seen.condition == Condition.CONTRADICTED:
            raise IntegrityError(f"{_name(child)}: {seen.message}")
        if seen.condition == Condition.DONE:
            if child.order.stage == "prepare":
                self._prepared.append(course)
            else:
                self._num_done += 1
            return
        if seen.condition == Condition.LOST and child.order.stage == "decode":
            course.deaths.update(set(seen.shard_ids))
        self._try_again(child)

    def _try_again(self, child: Child) -> None:
        """Give an assignment its next attempt, or give it up."""
        course, seen = child.course, child.seen
        reason = child.given_up or seen.message or seen.condition.value
        # A decoder that failed may have missed its features: preparing again costs little where they lie.
        stage: Stage = "decode" if child.order.stage == "decode" and seen.condition == Condition.LOST else "prepare"
        if max(course.attempts[stage], course.attempts[child.order.stage]) >= self._config.max_attempts:
            logger.error("%s: %s; given up after %d attempts", _name(child), reason, self._config.max_attempts)
            self.failures[course.planned.number] = reason
            return
        logger.warning("%s: %s; trying again", _name(child), reason)
        (self._prepared if stage == "decode" else self._fresh).appendleft(course)

    async def _insist(self, handle: str, child: Child) -> None:
        """Bury a child run that does not end though it was asked to."""
        if self._now() - child.given_up_at > self._config.cancel_deadline_s:
            await self._dispatch.bury(handle)
            del self._children[handle]
            child.see(replace(child.seen, condition=Condition.LOST), self._now())
            self._conclude(child)

    def _warn_of_queue(self, handle: str, child: Child) -> None:
        """Say once that a child run waits for a worker; it may be that none was started."""
        waited_s = self._now() - child.changed_at
        if child.seen.condition == Condition.QUEUED and waited_s > self._config.start_deadline_s:
            if handle not in self._warned:
                logger.warning("%s waits for a worker for %.0f s: is one running?", _name(child), waited_s)
            self._warned.add(handle)

    async def _end_all_if_called_off(self) -> None:
        """Let children end with a run that was cancelled, at once: the server would see to it half a minute later."""
        try:
            async with asyncio.timeout(FAREWELL_S):
                if await self._dispatch.is_called_off():
                    await self._end_all()
        except (TransientError, ConfigError, TimeoutError) as error:
            logger.warning("child runs were not ended, which the server does later: %r", error)

    async def _end_all(self) -> None:
        """Ask every child run to end; those that cannot be asked end by themselves."""
        for handle in self._children:
            try:
                await self._dispatch.cancel(handle)
            except TransientError as error:
                logger.warning("a child run was not ended: %s", error)


def _name(child: Child) -> str:
    """Name a child run for a person."""
    return f"{child.order.stage} of assignment {child.order.number}, attempt {child.order.attempt}"
