import hashlib
from datetime import UTC, datetime, timedelta, timezone

import pytest

from dgasr.errors import ConfigError
from dgasr.records import Recording
from dgasr.stages.plan import ShardConfig, estimate_s, plan_shards

DAY = datetime(2026, 11, 21, 12, tzinfo=UTC)
CONFIG = ShardConfig(target_s=100.0, max_recordings=4)


def recording(name: str, duration_s: float = 40.0, modified_at: datetime = DAY) -> Recording:
    return Recording(uri=f"s3://a/{name}.wav", etag="e", size_bytes=int(32_000 * duration_s), modified_at=modified_at)


def names(shard) -> list[str]:
    return [r.uri.split("/")[-1][:-4] for r in shard.recordings]


def test_a_shard_is_closed_when_its_estimate_reaches_the_target():
    shards = list(plan_shards([recording(str(n)) for n in range(7)], "recipe", CONFIG))
    assert [names(shard) for shard in shards] == [["0", "1", "2"], ["3", "4", "5"], ["6"]]


def test_a_shard_is_closed_at_its_most_recordings():
    shards = list(plan_shards([recording(str(n), duration_s=0.1) for n in range(6)], "recipe", CONFIG))
    assert [len(shard.recordings) for shard in shards] == [4, 2]


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


def test_a_shard_is_named_by_its_recordings_and_recipe():
    (first,), (again,), (other,) = (
        list(plan_shards([recording("a")], recipe, CONFIG)) for recipe in ("recipe", "recipe", "other")
    )
    assert first.shard_id == again.shard_id != other.shard_id


def test_durations_are_guessed_by_container():
    flac = Recording(uri="s3://a/x.FLAC", etag="", size_bytes=16_000, modified_at=DAY)
    assert estimate_s(flac) == 1.0


def test_shards_that_hold_nothing_are_refused():
    with pytest.raises(ConfigError, match="max_recordings"):
        ShardConfig(max_recordings=0)


def test_a_take_gives_equal_recordings_a_shard_of_another_name():
    plans = [list(plan_shards([recording("a")], "recipe", CONFIG, take=take)) for take in (0, 1, 2)]
    assert len({shard.shard_id for (shard,) in plans}) == 3
    assert [shard.take for (shard,) in plans] == [0, 1, 2]


def test_a_shard_without_a_take_keeps_the_name_it_always_had():
    (shard,) = plan_shards([recording("a")], "recipe", CONFIG)
    assert (
        shard.shard_id == hashlib.blake2b(f"recipe\0{recording('a').recording_id}".encode(), digest_size=12).hexdigest()
    )
