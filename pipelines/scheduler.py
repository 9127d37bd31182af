"""Takes a run's assignments through the work pools: prepare, then decode, each as a child run that may die at any time.

One coroutine for each assignment, and one that asks the server how all child runs are, one question a turn. What a
child run did lies in the lake and in the store; here only its status is known. A child run that crashed, never started
or stopped its heartbeat is cancelled and submitted anew. Knows no Prefect: tests schedule child runs that they invent.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from dgasr.errors import ConfigError, IntegrityError, TransientError
from dgasr.stages.plan import ChildRun, Stage
from pipelines.child_runs import Child, ChildRuns, ChildState, ChildStatus
from pipelines.request import PoolsConfig

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

SUSPECT_AFTER = 2
"""Decoders that die over a shard before it is decoded alone: one may be somebody else's doing, such as the kernel's."""

REJECT_AFTER = 5
"""Decoders that die over a shard, the last three over it alone, before its recordings are rejected: a machine
that is taken away kills decoders too, and must not cost good recordings their text."""

CANCEL_S = 15.0
"""How long a run that is cancelled may take to cancel its child runs, s; its process is killed after 30 s."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """An assignment that waits to be done."""

    uri: str
    number: int
    staged_bytes: int
    """Estimated size of its features in the store."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunStatus:
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


async def _ignore(status: RunStatus) -> None:
    """Tell nobody."""


class Scheduler:
    """Takes assignments through the child runs that `runs` starts; `on_turn` is told how far the run is every turn."""

    def __init__(
        self,
        children: ChildRuns,
        config: PoolsConfig,
        on_turn: Callable[[RunStatus], Awaitable[None]] = _ignore,
    ) -> None:
        self._runs, self._config, self._on_turn = children, config, on_turn
        self._slots = {
            "prepare": asyncio.Semaphore(config.max_prepare_runs),
            "decode": asyncio.Semaphore(config.max_decode_runs),
        }
        self._space = _Space(config.max_staged_bytes)
        self._children: dict[str, Child] = {}
        self._phases: dict[int, Literal["waiting", "prepare", "prepared", "decode"]] = {}
        self._num_assignments = self._num_done = self._num_attempts = 0
        self._watched_s = 0.0
        """Time in which the server answered: deadlines of child runs count in it, and not in the clock's time."""
        self._silent_since: float | None = None
        self.failures: dict[int, str] = {}
        """Assignments that were given up, by number, with what happened last."""

    @property
    def status(self) -> RunStatus:
        """How far the run is."""
        phases = list(self._phases.values())
        return RunStatus(
            num_assignments=self._num_assignments, num_done=self._num_done, num_failed=len(self.failures),
            num_preparing=phases.count("prepare"), num_prepared=phases.count("prepared"),
            num_decoding=phases.count("decode"), num_attempts=self._num_attempts,
        )  # fmt: skip

    async def run(self, assignments: Sequence[Planned]) -> RunStatus:
        """Take every assignment to its end, or give it up.

        Returns:
            How it ended; `failures` says why for those that were given up.

        Raises:
            ConfigError: a child run says that the request is wrong; the others were cancelled.
            IntegrityError: a child run found a contradiction; likewise.
            TransientError: the server was silent for too long; child runs that run go on and commit what they finish.
            CancelledError: the run is told to end; its child runs were cancelled, where a person has cancelled it.
        """
        self._num_assignments = len(assignments)
        try:
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self._watch())
                async with asyncio.TaskGroup() as work:
                    for planned in assignments:
                        work.create_task(self._complete(planned))
                watch.cancel()
        except BaseExceptionGroup as errors:
            error = _first(errors)
            if not isinstance(error, Exception):  # a signal, raised while one of the coroutines was at it
                await self._cancel_all_if_cancelled()
            elif not isinstance(error, TransientError):
                await self._cancel_all()
            raise error from None
        except asyncio.CancelledError:  # this process is told to end
            await self._cancel_all_if_cancelled()
            raise
        return self.status

    async def _complete(self, planned: Planned) -> None:
        """Take one assignment to its end, or give it up."""
        stage: Stage = "prepare"
        attempts: Counter[Stage] = Counter()
        deaths: Counter[str] = Counter()  # of decoders, by the shards that they had in work
        async with self._space.reserve(planned.staged_bytes):
            while True:
                async with self._slots[stage]:
                    attempts[stage] += 1
                    self._phases[planned.number] = stage
                    request = _request(planned, stage, attempts[stage], deaths)
                    status = await self._child(request)
                if status.state is ChildState.DONE and stage == "decode":
                    self._num_done += 1
                    break
                if status.state is ChildState.DONE:
                    stage, self._phases[planned.number] = "decode", "prepared"
                    continue
                died = stage == "decode" and status.state is ChildState.LOST
                deaths.update(status.shard_ids if died else ())
                # A decoder that failed may have missed its features: preparing again costs little where they lie.
                following: Stage = "decode" if died else "prepare"
                # Each death over a shard that is alone brings its end nearer, and so costs the assignment no attempt.
                is_nearer = died and any(SUSPECT_AFTER < deaths[s] <= REJECT_AFTER for s in status.shard_ids)
                if max(attempts[stage], attempts[following]) >= self._config.max_attempts and not is_nearer:
                    logger.error("%s: %s; given up after %d attempts", request, status.message, attempts[stage])
                    self.failures[planned.number] = status.message
                    break
                logger.warning("%s: %s; trying again", request, status.message)
                stage = following
                self._phases[planned.number] = "prepared" if following == "decode" else "waiting"
            del self._phases[planned.number]

    async def _child(self, request: ChildRun) -> ChildStatus:
        """Start a child run and wait for its end, or give it up; its last status, with a message.

        ConfigError where it says that the request is wrong, IntegrityError where it found a contradiction, and
        TransientError where the server was silent for too long.
        """
        await asyncio.sleep(0)  # another child run that ends the whole run has freed this slot: nothing more is started
        child_id = await self._answered(lambda: self._runs.submit(request))
        self._num_attempts += 1
        child = self._children[child_id] = Child(request=request, changed_at=self._watched_s)
        while not child.status.state.is_final:
            await child.is_seen.wait()
            child.is_seen.clear()
            if child.status.state.is_final:
                break
            if child.given_up:
                if self._watched_s - child.given_up_at > self._config.cancel_deadline_s:
                    await self._answered(lambda: self._runs.mark_crashed(child_id))
                    child.status = replace(child.status, state=ChildState.LOST)
            elif reason := child.overdue(self._config, self._watched_s):
                logger.warning("%s: %s; it is cancelled", request, reason)
                await self._answered(lambda: self._runs.cancel(child_id))
                child.given_up, child.given_up_at = reason, self._watched_s
            else:
                child.warn_of_queue(self._config, self._watched_s)
        del self._children[child_id]
        status = child.status
        if status.state is ChildState.REFUSED:
            raise ConfigError(f"{request}: {status.message}")
        if status.state is ChildState.CONTRADICTED:
            raise IntegrityError(f"{request}: {status.message}")
        return replace(status, message=child.given_up or status.message or status.state.value)

    async def _watch(self) -> None:
        """Ask how the child runs are, turn by turn, until this task is cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            began_at = clock()
            await asyncio.sleep(self._config.poll_s)
            requests = {child_id: child.request for child_id, child in self._children.items()}
            if not requests:
                continue
            try:
                statuses = await self._runs.look(requests)
            except TransientError as error:
                self._note_silence(error)
                continue
            self._silent_since = None
            self._watched_s += clock() - began_at
            for child_id, status in statuses.items():
                if child_id in self._children:
                    self._children[child_id].see(status, self._watched_s)
            await self._on_turn(self.status)

    async def _answered(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """Ask the server until it answers, or was silent for too long."""
        while True:
            try:
                answer = await ask()
            except TransientError as error:
                self._note_silence(error)
                await asyncio.sleep(self._config.poll_s)
            else:
                self._silent_since = None
                return answer

    def _note_silence(self, error: TransientError) -> None:
        """Go on without an answer, or raise where there was none for too long."""
        now = asyncio.get_running_loop().time()
        self._silent_since = now if self._silent_since is None else self._silent_since
        silent_s = now - self._silent_since
        if silent_s > self._config.server_deadline_s:
            raise TransientError(
                f"no answer for {silent_s:.0f} s ({error}). What was committed stays; the next run goes on there."
            ) from error
        logger.warning("no answer for %.0f s, going on: %s", silent_s, error)

    async def _cancel_all_if_cancelled(self) -> None:
        """Cancel the child runs of a cancelled run, at once: the server would see to it half a minute later."""
        try:
            async with asyncio.timeout(CANCEL_S):
                if await self._runs.is_cancelled():
                    await self._cancel_all()
        except (TransientError, ConfigError, TimeoutError) as error:
            logger.warning("child runs were not cancelled, which the server does later: %r", error)

    async def _cancel_all(self) -> None:
        """Ask every child run to end; those that cannot be asked end by themselves."""
        for child_id in self._children:
            try:
                await self._runs.cancel(child_id)
            except TransientError as error:
                logger.warning("a child run was not cancelled: %s", error)


class _Space:
    """Bytes of the store that staged features may take; handed out in order, and to one assignment always."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._taken_bytes = max_bytes, 0
        self._order, self._freed = asyncio.Lock(), asyncio.Condition()

    @asynccontextmanager
    async def reserve(self, num_bytes: int) -> AsyncIterator[None]:
        """Wait until there is room, and hold it."""
        async with self._order, self._freed:
            await self._freed.wait_for(
                lambda: not self._taken_bytes or self._taken_bytes + num_bytes <= self._max_bytes
            )
            self._taken_bytes += num_bytes
        try:
            yield
        finally:
            self._taken_bytes -= num_bytes
            async with self._freed:
                self._freed.notify_all()


def _request(planned: Planned, stage: Stage, attempt: int, deaths: Counter[str]) -> ChildRun:
    """Say what the next child run of an assignment is."""
    rejected = {shard_id for shard_id, count in deaths.items() if count >= REJECT_AFTER}
    suspects = {shard_id for shard_id, count in deaths.items() if count >= SUSPECT_AFTER} - rejected
    return ChildRun(
        stage=stage,
        number=planned.number,
        attempt=attempt,
        assignment_uri=planned.uri,
        suspects=tuple(sorted(suspects)) if stage == "decode" else (),
        rejected=tuple(sorted(rejected)) if stage == "decode" else (),
    )


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error that ended a group of tasks."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
