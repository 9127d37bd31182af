"""What the conductor asks of whoever runs its child runs. Knows no Prefect: tests conduct a fake."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from dgasr.stages.run_folder import Stage


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
