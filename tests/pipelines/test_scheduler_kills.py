"""The scheduler over decoders that are really killed by what they decode, without a server: one process each."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile

from dgasr.lake.views import connect
from dgasr.recipe import Recipe
from dgasr.records import Shard
from dgasr.stages.discover import Listing
from dgasr.stages.heartbeat import read_heartbeat
from dgasr.stages.isolation import Processes
from dgasr.stages.plan import AssignmentConfig, ChildRun, read_assignment, write_assignments
from dgasr.stages.prepare import prepare_shard
from dgasr.stages.staging import staged_uri_of
from pipelines.child_runs import ChildState, ChildStatus
from pipelines.request import PoolsConfig
from pipelines.scheduler import Planned, Scheduler
from tests.stages.deadly import DeadlyEngine, decode_or_die


class ProcessRuns:
    """Child runs in processes of this machine."""

    def __init__(self, lake_uri: str, engine: DeadlyEngine) -> None:
        self._lake_uri, self._engine = lake_uri, engine
        self._tasks: dict[str, asyncio.Task[object]] = {}
        self.decoders: list[ChildRun] = []

    async def submit(self, request: ChildRun) -> str:
        child_id = f"{request.stage}-{request.number}-{request.attempt}"
        self._tasks[child_id] = asyncio.create_task(asyncio.to_thread(self._work, request, child_id))
        return child_id

    async def look(self, requests: Mapping[str, ChildRun]) -> Mapping[str, ChildStatus]:
        return {child_id: self._status(child_id) for child_id in requests}

    def _work(self, request: ChildRun, child_id: str) -> object:
        recipe = self._engine.recipe
        if request.stage == "prepare":
            shards = read_assignment(request.assignment_uri).shards
            return [
                prepare_shard(shard, recipe, staged_uri_of(self._lake_uri, recipe.recipe_id, shard)) for shard in shards
            ]
        self.decoders.append(request)
        shards = frozenset(request.suspects), frozenset(request.rejected)
        with Processes(1, lambda count: None) as process:
            return process.run(
                decode_or_die, request.assignment_uri, recipe, self._engine, self._lake_uri, *shards,
                f"{self._lake_uri}/{child_id}.json",
            )  # fmt: skip

    def _status(self, child_id: str) -> ChildStatus:
        task = self._tasks[child_id]
        if not task.done():
            return ChildStatus(state=ChildState.RUNNING)
        if task.result() is not None:
            return ChildStatus(state=ChildState.DONE)
        heartbeat = read_heartbeat(f"{self._lake_uri}/{child_id}.json")
        return ChildStatus(state=ChildState.LOST, message="killed", shard_ids=heartbeat.shard_ids)


def write_speech(folder: Path, names: str) -> Path:
    """Write recordings that rise and fall as syllables do; returns their folder."""
    folder.mkdir()
    time_s = np.arange(2 * 16_000) / 16_000
    sound = (0.2 + 0.15 * np.sin(2 * np.pi * 3 * time_s)) * np.sin(2 * np.pi * 300 * time_s)
    for name in names:
        soundfile.write(folder / f"{name}.wav", np.concatenate([np.zeros(32_000), sound, np.zeros(32_000)]), 16_000)
    return folder


def test_a_shard_that_kills_its_processes_stops_neither_the_run_nor_its_neighbours_and_gets_rows_with_a_reason(
    tmp_path: Path, recipe: Recipe
):
    found = list(Listing([str(write_speech(tmp_path / "archive", "abcde"))]))
    lake_uri = f"{tmp_path}/lake"
    groups = {"killing": found[:2], "neighbour": found[2:3], "after": found[3:4], "elsewhere": found[4:]}
    shards = [Shard(shard_id=name, recordings=tuple(group)) for name, group in groups.items()]
    planned = [
        Planned(uri=uri, number=assignment.number, staged_bytes=1)
        for uri, assignment in write_assignments(shards, f"{lake_uri}/staging/runs/r", AssignmentConfig(max_shards=3))
    ]
    runs = ProcessRuns(lake_uri, DeadlyEngine(recipe, deadly=(found[1].recording_id,)))

    status = asyncio.run(Scheduler(runs, PoolsConfig(poll_s=0.05, max_attempts=3)).run(planned))

    assert (status.num_done, status.num_failed) == (2, 0)
    with connect(lake_uri) as connection:
        rows = connection.execute(
            "select split_part(uri, '/', -1), status, reason, message from recordings order by uri"
        )
        names = {name: rest for name, *rest in rows.fetchall()}
    assert {name: rest[:2] for name, rest in names.items()} == {
        "a.wav": ["rejected", "crashes_decoder"],
        "b.wav": ["rejected", "crashes_decoder"],
        "c.wav": ["ok", None],
        "d.wav": ["ok", None],
        "e.wav": ["ok", None],
    }
    assert "max_recordings: 1" in names["a.wav"][2]
    assert runs.decoders[-1].rejected == ("killing",)
