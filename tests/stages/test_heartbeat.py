import json
from pathlib import Path

import pytest

from dgasr.errors import IntegrityError
from dgasr.records import Shard
from dgasr.stages.counts import Counts
from dgasr.stages.heartbeat import HeartbeatWriter, read_heartbeat


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"{tmp_path}/heartbeat.json"


def shard(name: str) -> Shard:
    return Shard(shard_id=name, recordings=())


def test_a_worker_that_has_not_begun_has_no_heartbeat(uri: str):
    assert read_heartbeat(uri) is None


def test_a_shard_is_named_before_its_work_begins_and_until_a_heartbeat_after_its_end(uri: str):
    with HeartbeatWriter(uri, interval_s=60) as heartbeat:
        heartbeat.begin_reading(shard("s1"))
        heartbeat.begin_decoding(shard("s2"), 3)
        assert read_heartbeat(uri).shard_ids == ("s1", "s2")
        heartbeat.end_shard("s1", Counts())
        heartbeat.write()
        assert read_heartbeat(uri).shard_ids == ("s2",)


def test_the_last_heartbeat_says_all_that_was_done(uri: str):
    with HeartbeatWriter(uri, interval_s=60) as heartbeat:
        first = read_heartbeat(uri)
        heartbeat.advance(2)
        heartbeat.segment_decoded()
        heartbeat.describe("3 of 3")
    last = read_heartbeat(uri)
    assert (first.sequence, first.num_done) == (1, 0)
    assert (last.sequence, last.num_done, last.line) == (2, 3, "3 of 3")


def test_heartbeats_go_on_while_the_worker_is_busy(uri: str):
    with HeartbeatWriter(uri, interval_s=0.001):
        while read_heartbeat(uri).sequence < 5:
            pass


def test_a_heartbeat_that_cannot_be_written_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "file").touch()
    with HeartbeatWriter(f"{tmp_path}/file/heartbeat.json", interval_s=60) as heartbeat:
        heartbeat.begin_reading(shard("s1"))
    assert "heartbeat 1 is not written" in caplog.text


def test_a_heartbeat_of_a_newer_version_is_read_as_far_as_this_version_knows_it(uri: str):
    with HeartbeatWriter(uri, interval_s=60):
        pass
    path = Path(uri)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"memory_bytes": 1}))
    assert read_heartbeat(uri).sequence == 2


def test_something_else_in_a_heartbeats_place_is_named(uri: str):
    Path(uri).write_text("{}")
    with pytest.raises(IntegrityError, match=r"heartbeat\.json: is no heartbeat"):
        read_heartbeat(uri)
