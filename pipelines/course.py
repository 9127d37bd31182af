"""The course of one assignment through its child runs, and of one child run through its deadlines. Asks no server."""

from collections import Counter
from dataclasses import dataclass, field

from dgasr.stages.run_folder import Stage
from pipelines.dispatch import Condition, Order, Sighting
from pipelines.pools import PoolsConfig

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
