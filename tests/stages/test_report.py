from datetime import UTC, datetime

import pytest

from dgasr.stages.counts import Counts, commit_child_run
from dgasr.stages.embedded import transcribe_shards
from dgasr.stages.heartbeat import Progress
from dgasr.stages.plan import ChildRun, RunFolder, ShardConfig, Stage
from dgasr.stages.report import RunSummary, commit_run, rejections, run_report
from tests.stages.conftest import Place, engine_of


@pytest.fixture
def run(place: Place) -> RunSummary:
    return place.transcribe()


@pytest.fixture
def pools(place: Place) -> RunFolder:
    """A run that has no row yet, as one on the pools before its report."""
    engine = engine_of(place.recipe, place.transcriber)
    transcribe_shards(place.backlog(), place.lake, place.recipe, engine, Progress(), "r1", ShardConfig())
    return RunFolder(lake_uri=place.lake, run_id="r1")


def commit(folder: RunFolder, place: Place, stage: Stage, attempt: int, counts: Counts, **columns: object) -> None:
    child = ChildRun(stage=stage, number=0, attempt=attempt, assignment_uri="a.json")
    commit_child_run(folder, child, place.recipe, counts, datetime.now(UTC), **columns)


def decoded(wall_s: float, busy_share: float | None) -> Counts:
    return Counts(
        num_shards=1, num_recordings=2, num_rejected=1, num_segments=3, num_words=4, audio_s=100.0, speech_s=60.0,
        wall_s=wall_s, stream_s=0.0 if busy_share is None else 100.0, busy_s=100.0 * (busy_share or 0.0),
    )  # fmt: skip


def device_of(place: Place) -> str:
    """Write the row of the run whose children did the work; the device that it names."""
    commit_run(
        place.lake, place.recipe, run_id="r1", num_held=0, wall_s=1.0, engine=None, source="/a",
        started_at=datetime.now(UTC),
    )  # fmt: skip
    return place.ask("select device from runs where stage is null")[0][0]


def test_a_report_says_what_the_lake_knows_of_the_run_and_what_was_not_done(place: Place, run: RunSummary):
    text = run_report(place.lake, run.run_id)
    assert run.run_id in text
    assert "| recordings | 4 (2 ok, 1 partial, 1 rejected) |" in text
    assert "| rejected | unknown_format | 1 |" in text
    assert "Slowest to read" in text
    assert "Not done" not in text
    # Coverage counts what headers declare and nobody could decode.
    assert "100.00%" not in next(line for line in text.splitlines() if line.startswith("| coverage"))
    assert "- assignment 3: killed\n" in run_report(place.lake, run.run_id, ["assignment 3: killed"])
    assert "| recordings | 0 (0 ok, 0 partial, 0 rejected) |" in run_report(place.lake, "another")
    assert [row["status"] for row in rejections(place.lake, run.run_id, 10)] == ["rejected", "partial"]
    assert len(rejections(place.lake, run.run_id, 1)) == 1


def test_child_runs_give_busy_share_cost_and_devices_by_the_time_they_took(place: Place, pools: RunFolder):
    commit(pools, place, "decode", 1, decoded(3000.0, 1.0), device="cuda:0", gpu_hour_price=2.0)
    commit(pools, place, "decode", 2, decoded(1000.0, 0.6), device="cuda:0", gpu_hour_price=2.0)
    commit(pools, place, "decode", 3, decoded(3200.0, None), device="cpu", gpu_hour_price=2.0)
    text = run_report(place.lake, "r1")
    assert "| model busy | 90%" in text
    assert "| cost | 4.00" in text
    assert device_of(place) == "cpu, cuda:0"


def test_a_child_run_that_read_audio_is_a_row_of_its_own(place: Place, pools: RunFolder):
    prepared = Counts(num_shards=1, num_recordings=2, num_rejected=1, num_segments=3, audio_s=100.0, wall_s=10.0)
    for _ in range(2):  # a task that was tried again after its row was written
        commit(pools, place, "prepare", 1, prepared, device="cpu")
    assert "| prepare | 1 | 100.000 | 10.000 | 10.000 |" in run_report(place.lake, "r1")
    assert device_of(place) == "none"
