"""Recordings to shards, shards to assignments, and the folder in which a run keeps what its child runs need.

A shard is what is written together, whole or not at all. An assignment is the shards that one child run works through
with its model loaded once; it is written once and passed on by URI. Reads no audio.
"""

import hashlib
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Literal

from pydantic import TypeAdapter

from dgasr import store
from dgasr.errors import ConfigError
from dgasr.recipe import Recipe
from dgasr.records import Recording, Shard, settings

Stage = Literal["prepare", "decode"]
"""What a child run does."""

BYTES_PER_SECOND = {
    ".wav": 32_000, ".aiff": 32_000, ".flac": 16_000, ".mp3": 8_000, ".aac": 8_000, ".m4a": 8_000, ".mp4": 16_000,
    ".ogg": 6_000, ".opus": 3_000, ".webm": 6_000,
}  # fmt: skip
"""Typical bytes per second of speech archives, by file ending. Ours; a guess that only sets how even shards are."""

OTHER_BYTES_PER_SECOND = 16_000
"""The guess for every other ending."""

STAGED_BYTES_PER_SECOND = 16_000
"""Features of a second of audio: 100 frames of 80 float16 values each."""


@settings
class ShardConfig:
    """How much is committed at once."""

    target_s: float = 3600.0
    """Estimated audio in a shard, s; a longer recording is a shard of its own."""
    max_recordings: int = 2000
    """Most recordings in a shard, however short they are."""

    def __post_init__(self) -> None:
        """Refuse shards that hold nothing."""
        if self.target_s <= 0 or self.max_recordings < 1:
            raise ConfigError(
                f"ShardConfig: target_s={self.target_s} and max_recordings={self.max_recordings} must be positive."
            )


def plan_shards(recordings: Iterable[Recording], recipe_id: str, config: ShardConfig, take: int = 0) -> Iterator[Shard]:
    """Group recordings of one UTC day into shards; every recording is in exactly one.

    A shard is closed by its own recordings and never by what follows. So a run that was stopped, or a second one on
    the same archive, plans the shards that are not committed yet exactly as they were planned before.

    Args:
        recordings: what is to be transcribed, in the store's order; taken lazily.
        recipe_id: fingerprint of the recipe.
        config: how large a shard is.
        take: 0, or one more than the highest take of rows that are to be replaced.
    """
    open_days: dict[str, list[Recording]] = {}
    estimates_s: dict[str, float] = {}
    for recording in recordings:
        day = recording.modified_at.astimezone(UTC).date().isoformat()
        members = open_days.setdefault(day, [])
        members.append(recording)
        estimates_s[day] = estimates_s.get(day, 0.0) + estimate_s(recording)
        if estimates_s[day] >= config.target_s or len(members) >= config.max_recordings:
            yield _shard(members, recipe_id, take)
            del open_days[day], estimates_s[day]
    for day in sorted(open_days):
        yield _shard(open_days[day], recipe_id, take)


def estimate_s(recording: Recording) -> float:
    """Guess a recording's duration from its size, s."""
    suffix = PurePosixPath(recording.uri).suffix.lower()
    return recording.size_bytes / BYTES_PER_SECOND.get(suffix, OTHER_BYTES_PER_SECOND)


def _shard(members: list[Recording], recipe_id: str, take: int) -> Shard:
    """Name a shard after its recipe, take and recordings, so that equal work has an equal name everywhere."""
    # No recording's id looks like a take, and without a take a shard is named as it always was.
    key = "\0".join([recipe_id, *([f"take {take}"] if take else []), *(member.recording_id for member in members)])
    shard_id = hashlib.blake2b(key.encode(), digest_size=12).hexdigest()
    return Shard(shard_id=shard_id, recordings=tuple(members), take=take)


@settings
class AssignmentConfig:
    """How much one worker takes at once."""

    max_shards: int = 128
    """Most shards in an assignment, however short they are."""
    target_s: float = 64 * 3600.0
    """Estimated audio in an assignment, s: half an hour of a GPU at RTFx 130, and five minutes of one at 700."""

    def __post_init__(self) -> None:
        """Refuse assignments that hold nothing."""
        if self.max_shards < 1 or self.target_s <= 0:
            raise ConfigError(
                f"AssignmentConfig: max_shards={self.max_shards} and target_s={self.target_s} must be positive."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Assignment:
    """What one child run works through."""

    number: int
    """Position among the assignments of its run, from 0."""
    shards: tuple[Shard, ...]
    estimated_s: float
    """Audio in it, guessed from the sizes of the objects, s."""

    @property
    def estimated_staged_bytes(self) -> int:
        """Guess how many bytes its features take while they are staged."""
        return round(self.estimated_s * STAGED_BYTES_PER_SECOND)


ASSIGNMENT = TypeAdapter(Assignment)
"""Reads and writes an assignment as JSON; fields that only a newer version knows are left out."""


def write_assignments(
    shards: Iterable[Shard], folder_uri: str, config: AssignmentConfig
) -> Iterator[tuple[str, Assignment]]:
    """Write shards, taken lazily, into a folder in groups; yield URI and content of each as soon as it is written."""
    members: list[Shard] = []
    estimated_s, number = 0.0, 0
    for shard in shards:
        members.append(shard)
        estimated_s += sum(map(estimate_s, shard.recordings))
        if len(members) >= config.max_shards or estimated_s >= config.target_s:
            yield _write(Assignment(number=number, shards=tuple(members), estimated_s=estimated_s), folder_uri)
            members, estimated_s, number = [], 0.0, number + 1
    if members:
        yield _write(Assignment(number=number, shards=tuple(members), estimated_s=estimated_s), folder_uri)


def read_assignment(uri: str) -> Assignment:
    """Read an assignment; ObjectMissingError where none lies there."""
    return ASSIGNMENT.validate_json(store.read_bytes(uri))


def _write(assignment: Assignment, folder_uri: str) -> tuple[str, Assignment]:
    uri = f"{folder_uri}/{assignment.number:05d}.json"
    store.write_bytes(uri, ASSIGNMENT.dump_json(assignment))
    return uri, assignment


@settings
class ChildRun:
    """One attempt of one stage on one assignment; stage, number and attempt name it within its run."""

    stage: Stage
    number: int
    """The assignment's position among those of its run."""
    attempt: int
    """From 1."""
    assignment_uri: str
    suspects: tuple[str, ...] = ()
    """Shards that were in work when decoders died: they are decoded alone, after the others."""
    rejected: tuple[str, ...] = ()
    """Shards that ended decoders when they were alone: their recordings are rejected."""

    @property
    def name(self) -> str:
        """Name it within its run."""
        return f"{self.stage}-{self.number:05d}-{self.attempt}"

    def __str__(self) -> str:
        return f"{self.stage} of assignment {self.number}, attempt {self.attempt}"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFolder:
    """The folder in which a run keeps what its child runs need.

    {lake}/staging/runs/{run_id}/recipe.json                                  written once, by the parent
                                 assignments/{number}.json                    likewise
                                 heartbeats/{stage}-{number}-{attempt}.json   by the child run that works on it
                                 heartbeats/parent.json
    """

    lake_uri: str
    run_id: str

    @property
    def uri(self) -> str:
        """The folder."""
        return f"{self.lake_uri}/staging/runs/{self.run_id}"

    @property
    def assignments_uri(self) -> str:
        """Folder of the assignments."""
        return f"{self.uri}/assignments"

    def heartbeat_uri(self, child: ChildRun | None = None) -> str:
        """Say where the heartbeat of a child lies, or the parent's."""
        return f"{self.uri}/heartbeats/{'parent' if child is None else child.name}.json"

    def write_recipe(self, recipe: Recipe) -> None:
        """Write down what all children follow."""
        store.write_bytes(f"{self.uri}/recipe.json", recipe.to_json().encode())

    def read_recipe(self) -> Recipe:
        """Read what all children follow; ConfigError where another version wrote it, ObjectMissingError without one."""
        return Recipe.from_json(store.read_bytes(f"{self.uri}/recipe.json").decode())

    def delete(self) -> None:
        """Remove the folder once the run has ended."""
        for uri in list(store.list_uris(f"{self.uri}/")):
            store.delete(uri)


def new_run_id() -> str:
    """Name an execution: when it began, and a few random digits."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
