from pathlib import Path

import pytest

from dgasr.errors import IntegrityError
from dgasr.stages.heartbeat import Beating, read_beat


def test_a_worker_that_has_not_begun_has_no_beat(tmp_path: Path):
    assert read_beat(f"{tmp_path}/beat.json") is None


def test_a_shard_is_named_before_its_work_begins_and_until_a_beat_after_its_end(tmp_path: Path):
    uri = f"{tmp_path}/beat.json"
    with Beating(uri, interval_s=60) as beating:
        beating.begin("s1")
        beating.begin("s2")
        assert read_beat(uri).shard_ids == ("s1", "s2")
        beating.end("s1")
        beating.write()
        assert read_beat(uri).shard_ids == ("s2",)


def test_the_last_beat_says_all_that_was_done(tmp_path: Path):
    uri = f"{tmp_path}/beat.json"
    with Beating(uri, interval_s=60) as beating:
        first = read_beat(uri)
        beating.advance(3)
        beating.say("3 of 3")
    last = read_beat(uri)
    assert (first.sequence, first.num_done) == (1, 0)
    assert (last.sequence, last.num_done, last.line) == (2, 3, "3 of 3")


def test_beats_go_on_while_the_worker_is_busy(tmp_path: Path):
    uri = f"{tmp_path}/beat.json"
    with Beating(uri, interval_s=0.001):
        while read_beat(uri).sequence < 5:
            pass


def test_a_beat_that_cannot_be_written_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "file").touch()
    with Beating(f"{tmp_path}/file/beat.json", interval_s=60) as beating:
        beating.begin("s1")
    assert "beat 1 is not written" in caplog.text


def test_something_else_in_a_beats_place_is_named(tmp_path: Path):
    (tmp_path / "beat.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"beat\.json: is no beat"):
        read_beat(f"{tmp_path}/beat.json")
