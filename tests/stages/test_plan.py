import hashlib
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from dgasr.errors import ConfigError, ObjectMissingError
from dgasr.recipe import Recipe
from dgasr.records import Recording, Shard
from dgasr.stages.heartbeat import HeartbeatWriter, read_heartbeat
from dgasr.stages.plan import (
    Assignment,
    AssignmentConfig,
    ChildRun,
    RunFolder,
    ShardConfig,
    plan_shards,
    read_assignment,
    write_assignments,
)

DAY = datetime(2026, 11, 21, 12, tzinfo=UTC)
CONFIG = ShardConfig(target_s=100.0, max_recordings=4)


def recording(name: str, duration_s: float = 40.0, modified_at: datetime = DAY) -> Recording:
    return Recording(uri=f"s3://a/{name}.wav", etag="e", size_bytes=int(32_000 * duration_s), modified_at=modified_at)


def names(shard) -> list[str]:
    return [r.uri.split("/")[-1][:-4] for r in shard.recordings]


@pytest.mark.parametrize(
    ("count", "duration_s", "sizes"), [(7, 40.0, [3, 3, 1]), (6, 0.1, [4, 2])], ids=["target_s", "max_recordings"]
)
def test_a_shard_is_closed_when_it_is_full(count, duration_s, sizes):
    archive = [recording(str(n), duration_s) for n in range(count)]
    shards = list(plan_shards(archive, "recipe", CONFIG))
    assert [len(shard.recordings) for shard in shards] == sizes
    assert [one for shard in shards for one in shard.recordings] == archive


def test_a_shard_lies_in_one_utc_day():
    late = datetime(2026, 11, 21, 23, 30, tzinfo=timezone(timedelta(hours=-2)))  # 01:30 on the next day in UTC
    shards = list(plan_shards([recording("a"), recording("b", modified_at=late), recording("c")], "recipe", CONFIG))
    assert [names(shard) for shard in shards] == [["a", "c"], ["b"]]


def test_shards_left_over_by_a_stopped_run_are_planned_as_before():
    archive = [recording(str(n), duration_s=20.0 + 13 * (n % 5)) for n in range(40)]
    shards = list(plan_shards(archive, "recipe", CONFIG))
    for committed in ({0}, {1, 4}, set(range(0, len(shards), 2))):
        held = {r.uri for n in committed for r in shards[n].recordings}
        rest = list(plan_shards([r for r in archive if r.uri not in held], "recipe", CONFIG))
        assert rest == [shard for n, shard in enumerate(shards) if n not in committed]


def test_a_shard_is_named_by_its_recordings_recipe_and_take_as_it_always_was():
    plans = [("recipe", 0), ("other", 0), ("recipe", 1), ("recipe", 2)]
    shards = [next(plan_shards([recording("a")], recipe, CONFIG, take=take)) for recipe, take in plans]
    assert len({shard.shard_id for shard in shards}) == 4
    assert [shard.take for shard in shards] == [take for _, take in plans]
    key = f"recipe\0{recording('a').recording_id}".encode()
    assert shards[0].shard_id == hashlib.blake2b(key, digest_size=12).hexdigest()


@pytest.mark.parametrize(("config", "name"), [(ShardConfig, "max_recordings"), (AssignmentConfig, "max_shards")])
def test_shards_and_assignments_that_hold_nothing_are_refused(config, name):
    with pytest.raises(ConfigError, match=name):
        config(**{name: 0})


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


def test_assignments_are_written_while_shards_are_planned(tmp_path: Path):
    planned: list[int] = []
    shards = (planned.append(n) or shard(n) for n in range(100))
    next(iter(write_assignments(shards, f"{tmp_path}/assignments", AssignmentConfig(max_shards=3))))
    assert len(planned) == 3


def test_the_recipe_comes_back_and_nothing_is_left_in_the_end(tmp_path: Path, recipe: Recipe):
    folder = RunFolder(lake_uri=f"{tmp_path}/lake", run_id="r1")
    folder.write_recipe(recipe)
    uri = folder.heartbeat_uri(ChildRun(stage="decode", number=3, attempt=1, assignment_uri="a.json"))
    with HeartbeatWriter(uri):
        assert read_heartbeat(uri) is not None
    assert folder.read_recipe() == recipe
    folder.delete()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    with pytest.raises(ObjectMissingError):
        folder.read_recipe()
