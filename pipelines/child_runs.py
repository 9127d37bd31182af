"""Child runs as their parent sees them: what is asked for, how they stand, and which deadlines they miss.

Knows no Prefect.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from dgasr.stages.plan import ChildRun
from pipelines.request import PoolsConfig

logger = logging.getLogger(__name__)


class ChildState(StrEnum):
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
    """The request is wrong, for this child run and every other: a person must act."""
    CONTRADICTED = "contradicted"
    """Lake, model or recipe contradict each other: nothing more may be written."""

    @property
    def is_final(self) -> bool:
        """Whether nothing more comes of it."""
        return self not in (ChildState.QUEUED, ChildState.STARTING, ChildState.RUNNING)


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildStatus:
    """What is known of a child run at one moment."""

    state: ChildState
    message: str = ""
    """What its state says, for a person."""
    sequence: int = -1
    """Number of its last heartbeat; -1 before the first."""
    num_done: int = 0
    """How far it says it is; only compared with what it said before."""
    shard_ids: tuple[str, ...] = ()
    """Shards in work at its last heartbeat."""


class ChildRuns(Protocol):
    """Starts child runs and asks after them. Every call raises `TransientError` where the server does not answer."""

    async def submit(self, request: ChildRun) -> str:
        """Start a child run and return its id; the same request twice is one child run."""
        ...

    async def look(self, requests: Mapping[str, ChildRun]) -> Mapping[str, ChildStatus]:
        """Say how child runs stand, by id."""
        ...

    async def cancel(self, child_id: str) -> None:
        """Ask a child run to end."""
        ...

    async def is_cancelled(self) -> bool:
        """Say whether a person has cancelled the parent run; one that is only stopped leaves its child runs to work."""
        ...

    async def mark_crashed(self, child_id: str) -> None:
        """Mark a child run that does not end as crashed, so that it holds no slot any more."""
        ...


@dataclass(kw_only=True, slots=True)
class Child:
    """A child run and its deadlines, by the parent's own clock: machines may disagree on the time."""

    request: ChildRun
    changed_at: float
    """When its state last changed."""
    heartbeat_at: float = 0.0
    """When its last heartbeat was seen first."""
    advanced_at: float = 0.0
    """When it was last seen to get further."""
    status: ChildStatus = field(default_factory=lambda: ChildStatus(state=ChildState.QUEUED))
    is_seen: asyncio.Event = field(default_factory=asyncio.Event)
    given_up: str = ""
    """Why it is no longer wanted, or ""."""
    given_up_at: float = 0.0
    is_warned_of: bool = False

    def see(self, status: ChildStatus, now: float) -> None:
        """Take note of how it stands."""
        if status.state != self.status.state:
            self.changed_at = self.heartbeat_at = self.advanced_at = now
        if status.sequence != self.status.sequence:
            self.heartbeat_at = now
        if status.num_done != self.status.num_done:
            self.advanced_at = now
        self.status = status
        self.is_seen.set()

    def overdue(self, config: PoolsConfig, now: float) -> str:
        """Say which deadline it has missed; "" for none."""
        for state, since, limit_s, reason in (
            (ChildState.QUEUED, self.changed_at, config.queue_deadline_s, "no worker took it"),
            (ChildState.STARTING, self.changed_at, config.start_deadline_s, "its process never began to run"),
            (ChildState.RUNNING, self.heartbeat_at, config.heartbeat_deadline_s, "it had no heartbeat"),
            (ChildState.RUNNING, self.advanced_at, config.stall_deadline_s, "it lives but gets no further"),
        ):
            if self.status.state is state and now - since > limit_s:
                return f"{reason} for {now - since:.0f} s"
        return ""

    def warn_of_queue(self, config: PoolsConfig, now: float) -> None:
        """Say once that it waits for a worker; it may be that none was started."""
        waited_s = now - self.changed_at
        if self.status.state is ChildState.QUEUED and waited_s > config.start_deadline_s and not self.is_warned_of:
            logger.warning("%s waits for a worker for %.0f s: is one running?", self.request, waited_s)
            self.is_warned_of = True
