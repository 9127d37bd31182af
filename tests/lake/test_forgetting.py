"""A damaged partition can be taken out, and be filled again."""

from pathlib import Path

import pytest

from dgasr.errors import ConfigError, IntegrityError
from dgasr.lake.compaction import CompactionConfig, compact
from dgasr.lake.forgetting import forget_partition
from dgasr.lake.inspection import check_lake
from dgasr.lake.ledger import committed_recordings
from dgasr.lake.location import open_lake
from dgasr.lake.parts import commit_shard
from dgasr.lake.snapshot import snapshot
from dgasr.lake.vacuum import VacuumConfig, vacuum
from dgasr.store import objects

PARTITION = "recipe_id=f00d/date=2026-01-02"


@pytest.fixture
def damaged(tmp_path, make_shard, day):
    """A merged lake of two dates, of which one part is lost."""
    lake = str(tmp_path / "lake")
    for number in range(4):
        at = day.replace(day=2 + number // 2)
        commit_shard(objects, lake, make_shard(shard_id=f"s{number}", uri=f"/a/{number}", modified_at=at))
    compact(objects, lake, CompactionConfig())
    vacuum(objects, lake, VacuumConfig(grace_s=0.0))
    (part,) = Path(lake).glob(f"segments/{PARTITION}/*.parquet")
    part.unlink()
    with pytest.raises(IntegrityError, match="is missing"):
        snapshot(open_lake(lake))
    return lake


def test_a_forgotten_partition_is_held_no_more_and_the_others_are(damaged):
    forget_partition(objects, damaged, PARTITION)
    assert len(committed_recordings(damaged, "f00d")) == 2
    assert check_lake(damaged, is_deep=True).num_faults == 0


def test_what_was_forgotten_is_committed_anew_under_the_same_names(damaged, make_shard):
    forget_partition(objects, damaged, PARTITION)
    assert commit_shard(objects, damaged, make_shard(shard_id="s0", uri="/a/0", run_id="run2")).is_mine
    assert len(committed_recordings(damaged, "f00d")) == 3


@pytest.mark.parametrize("num_deleted", range(4))
def test_forgetting_that_was_killed_is_finished_by_the_next_call(damaged, num_deleted):
    left = iter(range(num_deleted))

    class Dying:
        read_bytes, write_if_absent = staticmethod(objects.read_bytes), staticmethod(objects.write_if_absent)

        def delete(self, uri):
            if next(left, None) is None:
                raise KeyboardInterrupt
            objects.delete(uri)

    if num_deleted < 3:  # one part, two commits
        with pytest.raises(KeyboardInterrupt):
            forget_partition(Dying(), damaged, PARTITION)
    forget_partition(objects, damaged, PARTITION)
    assert check_lake(damaged, is_deep=True).num_faults == 0
    assert len(committed_recordings(damaged, "f00d")) == 2


def test_what_is_no_partition_is_refused(damaged):
    for partition in ("f00d", "segments/recipe_id=f00d/date=2026-01-02", "recipe_id=f00d/date=january"):
        with pytest.raises(ConfigError, match="is no partition"):
            forget_partition(objects, damaged, partition)
