"""The flow keeps a lake in order, shows what it did, and removes nothing from a lake with a fault."""

import asyncio
import os
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.sorting import FlowRunSort

from dgasr.lake.ledger import committed_recordings
from pipelines.maintain import maintain
from tests.lake.conftest import write_two_days

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("prefect"), pytest.mark.usefixtures("temporary_server")]


@pytest.fixture
def lake(tmp_path):
    write_two_days(str(tmp_path / "lake"))
    left = tmp_path / "lake" / "staging" / "f00d" / "s1" / "00000.arrow"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"x")
    os.utime(left, (0, 0))
    return tmp_path / "lake"


async def run(lake: Path) -> tuple[object, str, dict[str, str]]:
    """Run the flow: its state, what a person sees of it, and its artifacts."""
    state = await maintain(lake=str(lake), return_state=True)
    async with get_client() as client:
        (flow_run, *_) = await client.read_flow_runs(sort=FlowRunSort.EXPECTED_START_TIME_DESC)
        artifacts = {artifact.key: artifact.data for artifact in await client.read_latest_artifacts()}
    return state, flow_run.state.message, artifacts


def test_a_lake_is_checked_merged_and_cleaned_and_a_damaged_one_is_left_as_it_lies(lake):
    state, message, artifacts = asyncio.run(run(lake))
    assert state.is_completed()
    assert message.startswith("the lake is sound")
    assert "0 unused files and 1 staged files were removed" in message
    assert "no files worth merging" in artifacts["maintain-lake"]
    assert len(committed_recordings(str(lake), "f00d")) == 4

    next(lake.glob("transcripts/*/date=2026-01-02/row_kind=segment/*")).unlink()
    left = lake / "staging" / "old" / "s1" / "00000.arrow"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"x")
    os.utime(left, (0, 0))
    state, message, artifacts = asyncio.run(run(lake))
    assert state.is_failed()
    assert message.startswith("1 faults (file_missing) in ")
    assert "dgasr lake forget recipe_id=f00d/date=2026-01-02" in artifacts["maintain-findings"]
    assert left.exists()
