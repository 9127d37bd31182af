"""Processes of `test_under_fire`: writers, compactions and vacuums that are killed at any time, and a reader.

A module of its own, so that processes which are forked from a server find their work by its name.
"""

import json
import os
import random
import signal
import threading
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from dgasr.errors import IntegrityError, TransientError
from dgasr.lake.ledger import commit_shard, committed_recordings
from dgasr.lake.rows import ShardRows
from dgasr.lake.upkeep import compact, vacuum
from dgasr.lake.views import connect

OWNERS = """
    select r.recipe_id, r.shard_id, r.run_id, s.language, count(*), max(r.take)
    from recordings r join segments s using (recipe_id, recording_id) group by all order by all
"""
"""For every visible recipe and shard whose rows it shows: run in recordings, run in segments, number of segments."""

SAID = "select count(*) from segments where list_contains(terms(text), 'two')"
"""In how many segments a word stands, which is 2 of each shard."""

RECIPES = ("f00d", "beef")


def kill_when(lake: str, when: str) -> None:
    """Let this process be killed at some moment, in milliseconds or by what lies in the lake; never, where empty."""
    number, _, what = when.rpartition(" ")

    def wait() -> None:
        if what == "ms":
            time.sleep(int(number) / 1000)
        else:
            pattern = {"log": "**/_delta_log", "parquet": "**/*.parquet"}.get(what, "")
            pattern = "**/*1.json" if when == "1 log" else pattern
            while sum(1 for _ in Path(lake).glob(pattern)) < int(number or 1):
                pass
        os.kill(os.getpid(), signal.SIGKILL)

    if when:
        threading.Thread(target=wait, daemon=True).start()


def shard_of(template: dict, shard_id: str, run_id: str, recipe_id: str = "f00d", take: int = 0) -> ShardRows:
    """Make rows of a shard that say in each table whose they are."""
    rows = json.loads(json.dumps(template), object_hook=_with_times)
    for row in rows["recordings"]:
        row["run_id"], row["take"] = run_id, take
    for row in rows["recordings"] + rows["segments"]:
        row["recording_id"], row["shard_id"] = shard_id.rjust(32, "0"), shard_id
    for row in rows["segments"]:
        row["language"] = run_id
    return ShardRows(recipe_id=recipe_id, shard_id=shard_id, run_id=run_id, **rows)


def race(environment: dict[str, str], lake: str, template: dict, shard_ids: list[str], run: tuple, start) -> None:
    """Commit shards as one run, at the moment in which others begin too."""
    os.environ.update(environment)
    run_id, when, take = run
    start.wait()
    kill_when(lake, when)
    for shard_id in shard_ids:
        commit_shard(lake, shard_of(template, shard_id, run_id, take=take))


def write(environment: dict[str, str], lake: str, template: dict, seed: int, kill_ms: int, take: int = 0) -> None:
    """Commit all shards of both recipes, in an order of its own."""
    os.environ.update(environment)
    kill_when(lake, f"{kill_ms} ms" if kill_ms >= 0 else "")
    shards = [(recipe_id, shard_id) for recipe_id in RECIPES for shard_id in template["shard_ids"]]
    random.Random(seed).shuffle(shards)
    rows = {"recordings": template["recordings"], "segments": template["segments"]}
    for recipe_id, shard_id in shards:
        commit_shard(lake, shard_of(rows, shard_id, f"run{seed}", recipe_id, take))


def merge(environment: dict[str, str], lake: str, kill_ms: int) -> None:
    """Merge files."""
    os.environ.update(environment)
    kill_when(lake, f"{kill_ms} ms" if kill_ms >= 0 else "")
    _unless_overtaken(lambda: compact(lake))


def clean(environment: dict[str, str], lake: str, kill_ms: int) -> None:
    """Remove what nobody needs."""
    os.environ.update(environment)
    kill_when(lake, f"{kill_ms} ms" if kill_ms >= 0 else "")
    _unless_overtaken(lambda: vacuum(lake))


def read(environment: dict[str, str], lake: str, stop: Path, answers: Path) -> None:
    """Ask views and ledger again and again; write what was wrong, and how often was asked."""
    os.environ.update(environment)
    seen, takes, num_asked, wrong = set(), {}, 0, []
    while not stop.exists():
        try:
            with connect(lake) as connection:
                owners = connection.execute(OWNERS).fetchall()
                ((num_said,),) = connection.execute(SAID).fetchall()
                ((num_rows, num_recordings),) = connection.execute(
                    "select count(*), count(distinct (recipe_id, recording_id)) from recordings"
                ).fetchall()
            held = committed_recordings(lake, "f00d")
        except IntegrityError as error:
            wrong.append(str(error))
            continue
        num_asked += 1
        wrong += [f"torn: {row}" for row in owners if row[2] != row[3] or row[4] != 3]
        wrong += [f"went back to an older take: {row}" for row in owners if row[5] < takes.get(row[:2], 0)]
        takes |= {row[:2]: row[5] for row in owners}
        shards = {row[:2] for row in owners}
        if num_said != 2 * len(shards):
            wrong.append(f"searched in vain or twice: {num_said} of {len(shards)}")
        if num_rows != num_recordings or len(shards) != len(owners):
            wrong.append(f"doubled: {num_rows} rows of {num_recordings} recordings")
        if not seen <= shards or not {s for r, s in shards if r == "f00d"} <= {_shard(value) for value in held}:
            wrong.append(f"lost: {sorted(seen - shards)}")
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
