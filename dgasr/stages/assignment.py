"""Assignments: the shards that one worker works through with its model loaded once. Written once, passed on by URI."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from dgasr.errors import ConfigError
from dgasr.records import Shard
from dgasr.stages.outcome import recording_from_json, recording_to_json
from dgasr.stages.plan import estimate_s
from dgasr.store import objects

STAGED_BYTES_PER_SECOND = 16_000
"""Features of a second of audio: 100 frames of 80 float16 values each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AssignmentConfig:
    """How much one worker takes at once.

    Attributes:
        max_shards: most shards in an assignment, however short they are.
        target_s: estimated audio in an assignment, s. The default is half an hour of a GPU that transcribes at RTFx
            130, and five minutes of one at 700.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    max_shards: int = 128
    target_s: float = 64 * 3600.0

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


def write_assignments(
    shards: Iterable[Shard], folder_uri: str, config: AssignmentConfig
) -> Iterator[tuple[str, Assignment]]:
    """Write shards down in groups.

    Args:
        shards: what is to be done; taken lazily.
        folder_uri: where the assignments go.
        config: how large an assignment is.

    Yields:
        URI and content of each assignment as soon as it is written.
    """
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
    """Read an assignment.

    Raises:
        ObjectMissingError: none lies there.
        TransientError: the storage failed in a way that may pass.
    """
    row = json.loads(objects.read_bytes(uri))
    return Assignment(
        number=row["number"], shards=tuple(map(_shard, row["shards"])), estimated_s=float(row["estimated_s"])
    )


def _write(assignment: Assignment, folder_uri: str) -> tuple[str, Assignment]:
    uri = f"{folder_uri}/{assignment.number:05d}.json"
    row = {
        "number": assignment.number,
        "estimated_s": assignment.estimated_s,
        "shards": [
            {
                "shard_id": shard.shard_id,
                "take": shard.take,
                "recordings": list(map(recording_to_json, shard.recordings)),
            }
            for shard in assignment.shards
        ],
    }
    objects.write_bytes(uri, json.dumps(row).encode())
    return uri, assignment


def _shard(row: dict[str, Any]) -> Shard:
    return Shard(
        shard_id=row["shard_id"], recordings=tuple(map(recording_from_json, row["recordings"])), take=row["take"]
    )
