"""Shards become visible whole and once: alone, raced, killed, and on S3."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from dgasr.errors import ConfigError, IntegrityError, ObjectMissingError
from dgasr.lake.parts import commit_shard, finish_shard, write_run
from dgasr.lake.schema import RUNS
from dgasr.lake.views import connect
from dgasr.store import objects

REPOSITORY = Path(__file__).parents[2]

WRITER = """
import json, os, sys
from datetime import datetime
from dgasr.lake.parts import commit_shard
from dgasr.lake.rows import ShardRows
from dgasr.store import objects

lake, run_id, calls = sys.argv[1], sys.argv[2], int(sys.argv[3])
template = json.load(open(sys.argv[4]))

class Dying:
    '''A store whose process is killed after so many changes.'''
    def __init__(self): self.left = calls
    def read_bytes(self, uri): return objects.read_bytes(uri)
    def write_if_absent(self, uri, data): return self.change(objects.write_if_absent, uri, data)
    def delete(self, uri): return self.change(objects.delete, uri)
    def change(self, function, *arguments):
        if self.left == 0: os.kill(os.getpid(), 9)
        self.left -= 1
        return function(*arguments)

print("ready", flush=True)
sys.stdin.readline()
for shard_id in sys.argv[5:]:
    rows = json.loads(json.dumps(template), object_hook=lambda row: {
        key: datetime.fromisoformat(value) if key.endswith("_at") else value for key, value in row.items()})
    for row in rows["recordings"]:
        row["run_id"] = run_id
    for row in rows["recordings"] + rows["segments"]:
        row["recording_id"], row["shard_id"] = shard_id.rjust(32, "0"), shard_id
    for row in rows["segments"]:
        row["language"] = run_id  # so that each table says whose it is
    commit_shard(Dying(), lake, ShardRows(recipe_id="f00d", shard_id=shard_id, run_id=run_id, **rows))
"""


@pytest.fixture
def start_writer(tmp_path, make_shard):
    """Start a process that commits shards as a run of its own; it waits for a line before it begins."""
    rows = make_shard()
    template = tmp_path / "rows.json"
    template.write_text(json.dumps({"recordings": rows.recordings, "segments": rows.segments}, default=str))
    (tmp_path / "writer.py").write_text(WRITER)

    def start(lake: str, run_id: str, shard_ids: list[str], changes: int = -1) -> subprocess.Popen:
        command = [sys.executable, str(tmp_path / "writer.py"), lake, run_id, str(changes), str(template), *shard_ids]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, env=environment, **pipes)

    return start


def run_together(processes: list[subprocess.Popen]) -> list[int]:
    for process in processes:
        assert process.stdout.readline() == b"ready\n", process.stderr.read().decode()
    for process in processes:
        process.stdin.write(b"\n")
        process.stdin.flush()
    ends = [process.communicate(timeout=60) for process in processes]
    for process, (_, stderr) in zip(processes, ends, strict=True):
        assert process.returncode in (0, -signal.SIGKILL), stderr.decode()
    return [process.returncode for process in processes]


def ask(lake: str, query: str) -> list[tuple]:
    with connect(lake) as connection:
        return connection.execute(query).fetchall()


def owners(lake: str) -> list[tuple]:
    """Return for every visible shard whose rows it shows: (shard, run in recordings, run in segments, segments)."""
    query = """select r.shard_id, r.run_id, s.language, count(*) from recordings r
        join segments s using (recipe_id, recording_id) group by all order by all"""
    return ask(lake, query)


def test_a_committed_shard_is_visible_and_leaves_no_claim(tmp_path, make_shard):
    result = commit_shard(objects, str(tmp_path), make_shard())
    assert result.is_mine
    assert [part.num_rows for part in result.commit.parts] == [3, 1]
    assert not [path for path in (tmp_path / "claims").rglob("*") if path.is_file()]


def test_committing_twice_changes_nothing(tmp_path, make_shard):
    lake = str(tmp_path)
    first = commit_shard(objects, lake, make_shard())
    again = commit_shard(objects, lake, make_shard())
    assert (again.commit, again.is_mine) == (first.commit, True)


def test_a_second_run_of_a_shard_is_told_that_it_came_late(tmp_path, make_shard):
    commit_shard(objects, str(tmp_path), make_shard())
    late = commit_shard(objects, str(tmp_path), make_shard(run_id="run2"))
    assert (late.commit.run_id, late.is_mine) == ("run1", False)


def test_rows_arrive_in_order_whatever_order_they_were_decoded_in(tmp_path, make_shard):
    rows = make_shard()
    first = commit_shard(objects, str(tmp_path / "a"), rows)
    second = commit_shard(objects, str(tmp_path / "b"), replace(rows, segments=rows.segments[::-1]))
    assert first.commit == second.commit


def test_a_shard_id_with_other_recordings_is_refused(tmp_path, make_shard):
    commit_shard(objects, str(tmp_path), make_shard())
    with pytest.raises(IntegrityError, match="committed with other recordings"):
        commit_shard(objects, str(tmp_path), make_shard(uri="/a/other.flac"))


def test_a_shard_of_two_dates_is_refused(tmp_path, make_shard):
    rows = make_shard()
    modified_at = rows.recordings[0]["modified_at"].replace(day=3)
    other = rows.recordings[0] | {
        "recording_id": "0" * 32,
        "modified_at": modified_at,
    }
    other |= {"num_segments": 0, "num_words": 0, "decoded_s": 0.0, "speech_s": 0.0, "dropped_s": 0.0}
    with pytest.raises(IntegrityError, match="one date partition, but this one holds 2026-01-02, 2026-01-03"):
        commit_shard(objects, str(tmp_path), replace(rows, recordings=[*rows.recordings, other]))


def test_a_value_that_does_not_fit_its_column_writes_nothing(tmp_path, make_shard):
    rows = make_shard()
    rows.segments[0]["num_steps"] = "four"
    with pytest.raises(IntegrityError, match="does not fit its column"):
        commit_shard(objects, str(tmp_path), rows)
    assert not list(tmp_path.iterdir())


def test_a_lake_that_cannot_be_written_is_for_a_person_to_cure(tmp_path, make_shard):
    (tmp_path / "claims").write_text("a file where a folder must be")
    with pytest.raises(ConfigError, match="the lake cannot be written"):
        commit_shard(objects, str(tmp_path), make_shard())


def test_an_id_that_cannot_stand_in_a_key_is_refused(tmp_path, make_shard):
    with pytest.raises(ConfigError, match=r"shard_id '\.\./x' cannot stand in a key"):
        commit_shard(objects, str(tmp_path), make_shard(shard_id="../x"))


def test_a_shard_of_rejected_recordings_has_no_segments(tmp_path, three_recordings):
    rejected = replace(three_recordings, recordings=[three_recordings.recordings[2]], segments=[])
    commit_shard(objects, str(tmp_path), rejected)
    assert ask(str(tmp_path), "select count(*) from recordings") == [(1,)]


def test_nothing_to_finish_where_nothing_began(tmp_path):
    assert finish_shard(objects, str(tmp_path), "f00d", "s1") is None


def test_a_broken_claim_is_named(tmp_path):
    uri = f"{tmp_path}/claims/recipe_id=f00d/s1.zip"
    objects.write_if_absent(uri, b"PK\x03\x04 half a file")
    with pytest.raises(IntegrityError, match=re.escape(uri) + ": is no claim of a shard"):
        finish_shard(objects, str(tmp_path), "f00d", "s1")


def test_a_run_is_written_once(tmp_path, small_lake):
    with connect(small_lake) as connection:
        (values,) = connection.execute("select * exclude (date) from runs").fetchall()
        row = dict(zip(RUNS.names, values, strict=True))
    assert [write_run(objects, str(tmp_path), row) for _ in range(2)] == [True, False]
    assert ask(str(tmp_path), "select run_id, rtfx from runs") == [("run1", 4.0)]


def test_two_processes_that_race_commit_each_shard_once(tmp_path, start_writer):
    lake, shard_ids = str(tmp_path / "lake"), [f"{number:02d}" for number in range(12)]
    codes = run_together([start_writer(lake, run, shard_ids) for run in ("run1", "run2")])
    found = owners(lake)
    assert codes == [0, 0]
    assert [(shard, count) for shard, _, _, count in found] == [(shard, 3) for shard in shard_ids]
    assert all(run == language for _, run, language, _ in found)
    tables = Counter(path.parts[len(Path(lake).parts)] for path in Path(lake).rglob("*") if path.is_file())
    assert tables == {"commits": 12, "recordings": 12, "segments": 12}


@pytest.mark.parametrize("changes", range(6))
def test_a_writer_killed_anywhere_leaves_the_shard_whole_or_absent(tmp_path, start_writer, changes):
    lake = tmp_path / "lake"
    lake.mkdir()
    (code,) = run_together([start_writer(str(lake), "run1", ["s1"], changes)])
    assert code == (-signal.SIGKILL if changes < 5 else 0)  # claim, segments, recordings, commit, removal of the claim
    assert owners(str(lake)) == ([("s1", "run1", "run1", 3)] if changes >= 4 else [])
    run_together([start_writer(str(lake), "run2", ["s1"])])
    winner = "run2" if changes == 0 else "run1"
    assert owners(str(lake)) == [("s1", winner, winner, 3)]
    assert len([path for path in lake.rglob("*") if path.is_file()]) == 3


def test_a_stalled_writer_cannot_mix_its_rows_in(tmp_path, make_shard):
    lake = str(tmp_path / "lake")

    class Overtaken:
        """A store in which another run commits the whole shard between a look at the lake and the claim."""

        read_bytes, delete = staticmethod(objects.read_bytes), staticmethod(objects.delete)

        def write_if_absent(self, uri: str, data: bytes) -> bool:
            if "/claims/" in uri:
                commit_shard(objects, lake, make_shard(run_id="run2"))
            return objects.write_if_absent(uri, data)

    result = commit_shard(Overtaken(), lake, make_shard())
    assert (result.is_mine, result.commit.run_id) == (False, "run2")
    assert ask(lake, "select run_id from recordings") == [("run2",)]
    with pytest.raises(ObjectMissingError):
        objects.read_bytes(f"{lake}/claims/recipe_id=f00d/s1.zip")


def test_two_processes_that_race_on_s3_commit_each_shard_once(s3_lake, start_writer):
    shard_ids = [f"{number:02d}" for number in range(4)]
    run_together([start_writer(s3_lake, run, shard_ids) for run in ("run1", "run2")])
    found = owners(s3_lake)
    assert [(shard, count) for shard, _, _, count in found] == [(shard, 3) for shard in shard_ids]
    assert all(run == language for _, run, language, _ in found)
