from datetime import UTC, datetime
from pathlib import Path

import pytest

from dgasr.recipe import Recipe
from dgasr.stages.counts import ChildRun, Counts, commit_child_run
from dgasr.stages.embedded import transcribe_sources
from dgasr.stages.heartbeat import Progress
from dgasr.stages.plan import Stage
from dgasr.stages.report import RunSummary, decoding_devices, rejections, run_report
from tests.stages.conftest import engine_of


@pytest.fixture
def run(archive: Path, recipe: Recipe, transcriber) -> tuple[str, RunSummary]:
    """A lake with one run of its own, and the run."""
    lake = f"{archive.parent}/lake"
    return lake, transcribe_sources([str(archive)], lake, recipe, engine_of(recipe, transcriber), Progress())


def child(lake: str, run_id: str, stage: Stage, attempt: int = 1) -> ChildRun:
    return ChildRun(
        lake_uri=lake, parent_run_id=run_id, stage=stage, number=0, attempt=attempt, assignment_uri="a.json",
        started_at=datetime.now(UTC),
    )  # fmt: skip


def decoded(wall_s: float, busy_share: float | None) -> Counts:
    return Counts(
        num_shards=1, num_recordings=2, num_rejected=1, num_segments=3, num_words=4, audio_s=100.0, speech_s=60.0,
        wall_s=wall_s, stream_s=0.0 if busy_share is None else 100.0, busy_s=100.0 * (busy_share or 0.0),
    )  # fmt: skip


def test_a_report_says_what_the_lake_knows_of_the_run(run: tuple[str, RunSummary]):
    text = run_report(run[0], run[1].run_id)
    assert run[1].run_id in text
    assert "| recordings | 4 (2 ok, 1 partial, 1 rejected) |" in text
    assert "| rejected | unknown_format | 1 |" in text
    assert "Slowest to read" in text
    assert "Not done" not in text


def test_coverage_counts_what_headers_declare_and_nobody_could_decode(run: tuple[str, RunSummary]):
    line = next(line for line in run_report(run[0], run[1].run_id).splitlines() if line.startswith("| coverage"))
    assert "100.00%" not in line


def test_a_run_that_did_nothing_has_a_report_too(run: tuple[str, RunSummary]):
    assert "| recordings | 0 (0 ok, 0 partial, 0 rejected) |" in run_report(run[0], "another")


def test_what_was_not_done_stands_in_the_report(run: tuple[str, RunSummary]):
    assert "- assignment 3: killed\n" in run_report(run[0], run[1].run_id, ["assignment 3: killed"])


def test_child_runs_give_busy_share_and_cost_by_the_time_they_took(run: tuple[str, RunSummary], recipe: Recipe):
    lake, run_id = run[0], run[1].run_id
    commit_child_run(child(lake, run_id, "decode", 1), recipe, decoded(3000.0, 1.0), "cuda:0", 2.0)
    commit_child_run(child(lake, run_id, "decode", 2), recipe, decoded(1000.0, 0.6), "cuda:0", 2.0)
    commit_child_run(child(lake, run_id, "decode", 3), recipe, decoded(3200.0, None), "cpu", 2.0)
    text = run_report(lake, run_id)
    assert "| model busy | 90%" in text
    assert "| cost | 4.00" in text
    assert decoding_devices(lake, run_id) == "cpu, cuda:0"


def test_a_child_run_that_read_audio_is_a_row_of_its_own(run: tuple[str, RunSummary], recipe: Recipe):
    lake, run_id = run[0], run[1].run_id
    prepared = Counts(num_shards=1, num_recordings=2, num_rejected=1, num_segments=3, audio_s=100.0, wall_s=10.0)
    for _ in range(2):  # a task that was tried again after its row was written
        commit_child_run(child(lake, run_id, "prepare"), recipe, prepared, "cpu")
    assert "| prepare | 1 | 100.000 | 10.000 | 10.000 |" in run_report(lake, run_id)
    assert decoding_devices(lake, run_id) == "none"


def test_rejections_are_listed_worst_first(run: tuple[str, RunSummary]):
    listed = rejections(run[0], run[1].run_id, 10)
    assert [row["status"] for row in listed] == ["rejected", "partial"]
    assert len(rejections(run[0], run[1].run_id, 1)) == 1
