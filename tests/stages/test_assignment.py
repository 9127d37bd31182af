from datetime import UTC, datetime
from pathlib import Path

import pytest

from dgasr.errors import ConfigError
from dgasr.records import Recording, Shard
from dgasr.stages.assignment import Assignment, AssignmentConfig, read_assignment, write_assignments


def shard(number: int, duration_s: float = 10.0, take: int = 0) -> Shard:
    recording = Recording(
        uri=f"s3://a/{number}.wav", etag="e", size_bytes=int(32_000 * duration_s), modified_at=datetime.now(UTC)
    )
    return Shard(shard_id=f"s{number}", recordings=(recording,), take=take)


def write(folder: Path, shards: list[Shard], config: AssignmentConfig) -> list[tuple[str, Assignment]]:
    return list(write_assignments(shards, f"{folder}/assignments", config))


def test_assignments_come_back_as_they_were_written(tmp_path: Path):
    written = write(tmp_path, [shard(n, take=n) for n in range(3)], AssignmentConfig(max_shards=2))
    assert [read_assignment(uri) for uri, _ in written] == [assignment for _, assignment in written]
    assert [[s.shard_id for s in assignment.shards] for _, assignment in written] == [["s0", "s1"], ["s2"]]


def test_an_assignment_is_closed_when_its_estimate_reaches_the_target(tmp_path: Path):
    written = write(tmp_path, [shard(n) for n in range(5)], AssignmentConfig(target_s=20.0))
    assert [assignment.estimated_s for _, assignment in written] == [20.0, 20.0, 10.0]


def test_staged_bytes_are_guessed_from_the_estimate():
    assert Assignment(number=0, shards=(), estimated_s=3600.0).estimated_staged_bytes == 57_600_000


def test_assignments_are_written_while_shards_are_planned(tmp_path: Path):
    planned: list[int] = []
    shards = (planned.append(n) or shard(n) for n in range(100))
    next(iter(write_assignments(shards, f"{tmp_path}/assignments", AssignmentConfig(max_shards=3))))
    assert len(planned) == 3


def test_assignments_that_hold_nothing_are_refused():
    with pytest.raises(ConfigError, match="max_shards"):
        AssignmentConfig(max_shards=0)
