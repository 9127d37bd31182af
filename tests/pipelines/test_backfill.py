"""The flow `backfill` in one process, with a transcriber that needs no model, and how it is handed to a server."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from dgasr.errors import ConfigError
from dgasr.lake.views import connect
from dgasr.recipe import Recipe
from dgasr.stages.engine import EngineConfig
from dgasr.stages.plan import ShardConfig
from dgasr.stages.selection import Selection
from pipelines.request import PoolsConfig
from pipelines.transcribe import backfill, submit
from tests.pipelines.silent import start_silently, write_noise

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("prefect")]


@pytest.fixture(autouse=True)
def engine(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    start_silently(recipe, monkeypatch)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_noise(tmp_path / "archive", "abc")


def run(archive: Path, dry_run: bool = False, **selection: object) -> dict:
    return asyncio.run(
        backfill(
            selection=Selection(sources=(str(archive),), **selection),
            lake=str(archive.parent / "lake"),
            engine=EngineConfig(),
            shard=ShardConfig(),
            pools=PoolsConfig(),
            dry_run=dry_run,
        )
    )


def takes(archive: Path) -> list[tuple]:
    with connect(str(archive.parent / "lake")) as connection:
        query = "select split_part(uri, '/', -1), take from recordings order by uri"
        return connection.execute(query).fetchall()


async def newest_run() -> tuple[str, dict]:
    async with get_client() as client:
        flow_runs = await client.read_flow_runs()
        artifacts = {artifact.key: artifact for artifact in await client.read_artifacts()}
    newest = max(flow_runs, key=lambda flow_run: flow_run.created)
    return newest.state.message, artifacts


def test_a_selection_is_transcribed_and_what_is_forced_again_is_a_higher_take(archive: Path):
    assert run(archive, path_pattern="*/[ab].wav")["num_recordings"] == 2
    assert run(archive, force=True, path_pattern="*/a.wav")["num_recordings"] == 1
    assert takes(archive) == [("a.wav", 1), ("b.wav", 0)]
    assert run(archive, redo_before=datetime(2020, 1, 1, tzinfo=UTC))["num_held"] == 2


def test_a_dry_run_writes_nothing_and_says_what_it_found(archive: Path):
    found = run(archive, dry_run=True)
    assert (found["num_new"], found["num_listed"]) == (3, 3)
    assert not (archive.parent / "lake").exists()
    message, artifacts = asyncio.run(newest_run())
    assert message.startswith("dry run: 3 of 3 recordings")
    assert "GPU time, estimated" in artifacts["backfill-forecast"].data


def test_without_a_server_nothing_can_be_handed_over():
    with pytest.raises(ConfigError, match="PREFECT_API_URL names no server"):
        submit(Selection(sources=("/a",)), "/lake", None)


def test_a_server_that_does_not_answer_is_named():
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(ConfigError, match=r"http://127\.0\.0\.1:9/api: no Prefect server answers"),
    ):
        submit(Selection(sources=("/a",)), "/lake", None)
