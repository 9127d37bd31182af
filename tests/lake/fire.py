"""Processes of `test_under_fire`: writers, compactions and vacuums that are killed by their own store, and a reader.

A module of its own, so that processes which are forked from a server find their work by its name.
"""

import json
import os
import random
import signal
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from dgasr.errors import IntegrityError, TransientError
from dgasr.lake.compaction import CompactionConfig, compact
from dgasr.lake.ledger import committed_recordings
from dgasr.lake.parts import commit_shard
from dgasr.lake.rows import ShardRows
from dgasr.lake.vacuum import VacuumConfig, vacuum
from dgasr.lake.views import connect
from dgasr.store import objects

GRACE_S = 5.0
"""Of vacuums in the fire: a reader who takes longer may miss a part, and looks again."""

OWNERS = """
    select r.shard_id, r.run_id, s.language, count(*)
    from recordings r join segments s using (recipe_id, recording_id) group by all order by all
"""
"""For every visible shard whose rows it shows: shard, run in recordings, run in segments, number of segments."""

SAID = "select shard_id, count(*) from postings('two') group by shard_id order by shard_id"
"""For every visible shard: in how many of its segments a word stands, which is 2."""


class Dying:
    """A store whose process is killed after so many changes; for ever where that is negative."""

    read_bytes = staticmethod(objects.read_bytes)

    def __init__(self, changes: int) -> None:
        self._left = changes

    def write_if_absent(self, uri: str, data: bytes) -> bool:
        return self._change(objects.write_if_absent, uri, data)

    def delete(self, uri: str) -> None:
        self._change(objects.delete, uri)

    def _change(self, function, *arguments):
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1
        return function(*arguments)


def shard_of(template: dict, shard_id: str, run_id: str) -> ShardRows:
    """Make rows of a shard that say in each table whose they are."""
    rows = json.loads(json.dumps(template), object_hook=_with_times)
    for row in rows["recordings"]:
        row["run_id"] = run_id
    for row in rows["recordings"] + rows["segments"]:
        row["recording_id"], row["shard_id"] = shard_id.rjust(32, "0"), shard_id
    for row in rows["segments"]:
        row["language"] = run_id
    return ShardRows(recipe_id="f00d", shard_id=shard_id, run_id=run_id, **rows)


def write(environment: dict[str, str], lake: str, template: dict, seed: int, changes: int) -> None:
    """Commit all shards, in an order of its own."""
    os.environ.update(environment)
    shard_ids = list(template["shard_ids"])
    random.Random(seed).shuffle(shard_ids)
    rows = {"recordings": template["recordings"], "segments": template["segments"]}
    for shard_id in shard_ids:
        commit_shard(Dying(changes) if shard_id == shard_ids[changes % len(shard_ids)] else objects, lake,
                     shard_of(rows, shard_id, f"run{seed}"))  # fmt: skip


def merge(environment: dict[str, str], lake: str, changes: int) -> None:
    """Merge parts of which two make one."""
    os.environ.update(environment)
    _unless_overtaken(lambda: compact(Dying(changes), lake, CompactionConfig(target_bytes=60_000)))


def clean(environment: dict[str, str], lake: str, changes: int) -> None:
    """Remove what nobody needs."""
    os.environ.update(environment)
    _unless_overtaken(lambda: vacuum(Dying(changes), lake, VacuumConfig(grace_s=GRACE_S)))


def read(environment: dict[str, str], lake: str, stop: Path, answers: Path) -> None:
    """Ask views and ledger again and again; write what was wrong, and how often was asked."""
    os.environ.update(environment)
    seen, num_asked, wrong = set(), 0, []
    while not stop.exists():
        started = time.monotonic()
        try:
            with connect(lake) as connection:
                owners = connection.execute(OWNERS).fetchall()
                said = connection.execute(SAID).fetchall()
            held = committed_recordings(lake, "f00d")
        except IntegrityError as error:
            if time.monotonic() - started < GRACE_S:
                wrong.append(str(error))
            continue
        num_asked += 1
        wrong += [f"torn or doubled: {row}" for row in owners if row[1] != row[2] or row[3] != 3]
        shards = {row[0] for row in owners}
        wrong += (
            [] if said == [(shard_id, 2) for shard_id in sorted(shards)] else [f"searched in vain or twice: {said}"]
        )
        if len(shards) != len(owners) or not seen <= shards or not shards <= {_shard(value) for value in held}:
            wrong.append(f"lost: {sorted(seen - shards)}, doubled: {len(owners) - len(shards)}")
        seen |= shards
    answers.write_text(json.dumps({"wrong": wrong, "num_asked": num_asked, "num_seen": len(seen)}))


def _unless_overtaken(work) -> None:
    """Do something that may give up because others were faster."""
    with suppress(TransientError):
        work()


def _shard(recording_id: bytes) -> str:
    return recording_id.hex()[-2:]


def _with_times(row: dict) -> dict:
    return {key: datetime.fromisoformat(value) if key.endswith("_at") else value for key, value in row.items()}
