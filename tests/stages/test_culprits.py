from datetime import UTC, datetime

import pytest

from dgasr.errors import ConfigError, TransientError
from dgasr.records import Recording, Shard
from dgasr.stages.culprits import find_crashing, settle


def recordings(count: int) -> list[Recording]:
    now = datetime.now(UTC)
    return [Recording(uri=f"s3://a/{n}.wav", etag="e", size_bytes=1, modified_at=now) for n in range(count)]


def test_all_culprits_are_found_and_nobody_else():
    everything = recordings(23)
    culprits = {everything[n] for n in (0, 7, 8, 22)}
    assert set(find_crashing(everything, lambda group: not culprits & set(group))) == culprits


def test_a_recording_must_end_two_processes_to_be_blamed():
    everything, tries = recordings(4), []

    def survives(group) -> bool:
        tries.append(group)
        return everything[2] not in group or tries.count([everything[2]]) > 1

    assert list(find_crashing(everything, survives)) == []


def test_nobody_is_blamed_where_processes_die_of_nothing():
    with pytest.raises(ConfigError, match="before it has touched a recording"):
        list(find_crashing(recordings(3), lambda group: False))


def test_a_shard_that_dies_without_any_culprit_may_work_next_time():
    shard = Shard(shard_id="s1", recordings=tuple(recordings(2)))
    with pytest.raises(TransientError, match="more memory"):
        settle(shard, lambda crashing: None, lambda group: True)
