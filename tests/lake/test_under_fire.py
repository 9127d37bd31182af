"""Writers, readers, compactions and vacuums at once, killed again and again: nothing is lost, nothing doubled."""

import json
import multiprocessing
import os
import random
import signal
from pathlib import Path

import boto3
import pytest

from dgasr.lake.check import check_lake
from dgasr.lake.ledger import commit_shard, committed_recordings
from dgasr.lake.upkeep import compact, vacuum
from dgasr.lake.views import connect
from tests.lake import fire

SHARD_IDS = [f"{number:02d}" for number in range(8)]
SEED = int(os.environ.get("DGASR_FIRE_SEED", "20261121"))
ROUNDS = int(os.environ.get("DGASR_FIRE_ROUNDS", "4"))
"""More of both in a longer fire: `DGASR_FIRE_ROUNDS=50 DGASR_FIRE_SEED=7 pytest tests/lake/test_under_fire.py`."""

pytestmark = pytest.mark.slow


@pytest.fixture
def template(make_shard):
    rows = make_shard()
    return json.loads(
        json.dumps({"recordings": rows.recordings, "segments": rows.segments, "shard_ids": SHARD_IDS}, default=str)
    )


@pytest.fixture(params=["folder", "s3"])
def place(request, tmp_path):
    """Where the lake lies, the environment that a process needs to find it, and how long it burns."""
    if request.param == "folder":
        return str(tmp_path / "lake"), {}, ROUNDS
    endpoint = request.getfixturevalue("s3_endpoint")
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="fire")
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    return f"s3://fire/{tmp_path.name}", environment, (ROUNDS + 3) // 4  # each request costs the test's own server time


def test_nothing_is_lost_and_nothing_doubled_in_the_fire(place, template, tmp_path, capsys):
    lake, environment, num_rounds = place
    commit_shard(lake, fire.shard_of({k: template[k] for k in ("recordings", "segments")}, SHARD_IDS[0], "run0"))
    num_killed = burn(lake, environment, template, tmp_path, num_rounds)
    answers = json.loads((tmp_path / "answers.json").read_text())
    with capsys.disabled():
        print(f"\n{lake.split(':')[0]}: {num_killed} killed, seed {SEED}, {answers['num_asked']} readings")
    assert answers["wrong"][:5] == []
    assert answers["num_asked"] > 0
    assert num_killed >= num_rounds
    fire.write(environment, lake, template, seed=99, kill_ms=-1, take=num_rounds)
    compact(lake)
    vacuum(lake, grace_s=0.0)
    check_end(lake)


def burn(lake: str, environment: dict[str, str], template: dict, tmp_path: Path, num_rounds: int) -> int:
    """Let all of them work and die for some rounds while one reads; how many were killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.lake.fire"])
    stop, answers, chance = tmp_path / "stop", tmp_path / "answers.json", random.Random(SEED)
    reader = context.Process(target=fire.read, args=(environment, lake, stop, answers))
    reader.start()
    num_killed = 0
    try:
        for number in range(num_rounds):
            moments = [chance.randrange(300, 2_000) for _ in range(5)]
            seed, take = 2 * number, number // 2  # every second round asks for everything again
            works = [
                *((fire.write, (environment, lake, template, seed + n, moments[n], take)) for n in range(2)),
                *((fire.merge, (environment, lake, moments[2 + n])) for n in range(2)),
                (fire.clean, (environment, lake, moments[4])),
            ]
            processes = [context.Process(target=target, args=arguments) for target, arguments in works]
            for process in processes:
                process.start()
            for process in processes:
                process.join(120)
                assert process.exitcode in (0, -signal.SIGKILL), f"{process} failed"
                num_killed += process.exitcode == -signal.SIGKILL
    finally:
        stop.touch()
        reader.join(120)
    assert reader.exitcode == 0
    return num_killed


def check_end(lake: str) -> None:
    """The lake holds every shard once, whole; by the views, by the ledger and by its own check."""
    with connect(lake) as connection:
        owners = connection.execute(fire.OWNERS).fetchall()
    expected = [(recipe_id, shard_id, 3) for recipe_id in sorted(fire.RECIPES) for shard_id in SHARD_IDS]
    assert [(row[0], row[1], row[4]) for row in owners] == expected
    assert all(row[2] == row[3] for row in owners)
    assert committed_recordings(lake, "f00d") == {bytes.fromhex(shard_id.rjust(32, "0")) for shard_id in SHARD_IDS}
    faults = [found for found in check_lake(lake, is_deep=True).findings if found.severity == "fault"]
    assert {found.kind for found in faults} <= {"identity"}  # these recordings have made-up ids
