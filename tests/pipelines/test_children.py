"""The work of child runs, without a server: what one stages the other commits, and each has its row."""

import asyncio
from pathlib import Path

import pytest

from dgasr.lake.views import connect
from dgasr.recipe import Recipe
from dgasr.records import Shard
from dgasr.stages.discover import Listing
from dgasr.stages.engine import Engine, EngineConfig
from dgasr.stages.heartbeat import read_heartbeat
from dgasr.stages.plan import AssignmentConfig, ChildRun, RunFolder, write_assignments
from pipelines import children
from tests.pipelines.silent import SilentTranscriber, write_noise


def test_what_a_run_of_prepare_stages_a_run_of_decode_commits_and_each_has_its_row(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        children, "start_engine", lambda config: Engine(recipe=recipe, transcriber=SilentTranscriber(), device="cuda:0")
    )
    folder = RunFolder(lake_uri=f"{tmp_path}/lake", run_id="r1")
    folder.write_recipe(recipe)
    recordings = tuple(Listing([str(write_noise(tmp_path / "archive", "abc"))]))
    shards = [Shard(shard_id="s1", recordings=recordings[:2]), Shard(shard_id="s2", recordings=recordings[2:])]
    ((uri, _),) = write_assignments(shards, folder.assignments_uri, AssignmentConfig())
    prepare, decode = (
        ChildRun(stage=stage, number=0, attempt=2, assignment_uri=uri, rejected=("s2",))
        for stage in ("prepare", "decode")
    )
    assert "3 recordings" in asyncio.run(children.stage_features.fn(prepare, folder, 1))
    line = asyncio.run(children.commit_transcripts.fn(decode, folder, EngineConfig(), 2.5))
    assert "3 recordings (1 rejected, 0 partial)" in line
    assert [read_heartbeat(folder.heartbeat_uri(child)).line for child in (prepare, decode)] == ["2 shards done"] * 2
    with connect(folder.lake_uri) as connection:
        rows = connection.execute(
            "select run_id, stage, parent_run_id, source = ?, num_attempts, num_recordings, gpu_hour_price from runs "
            "order by run_id",
            [uri],
        ).fetchall()
    assert rows == [
        ("r1-decode-00000-2", "decode", "r1", True, 2, 3, 2.5),
        ("r1-prepare-00000-2", "prepare", "r1", True, 2, 3, None),
    ]
