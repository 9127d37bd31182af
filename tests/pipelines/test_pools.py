"""A real server, real pools and workers, S3 over HTTP: the small form of `tests/proofs/e2e.py`."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dgasr.cli import main
from dgasr.lake.views import connect
from tests.proofs.archive import Entry
from tests.proofs.cluster import Cluster, build_archive, install, parameters
from tests.proofs.lakes import check_entries, differences

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("prefect")]

EMBEDDED, POOLS = "s3://archive/embedded", "s3://archive/pools"
TIMEOUT_S = 400.0


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, prefect_database: Path) -> Iterator[tuple[str, list[Entry]]]:
    """Transcribe an archive on the pools, two shards, and in one process; its prefix, and what it holds."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "prefect").mkdir()
    shutil.copyfile(prefect_database, folder / "prefect" / "prefect.db")
    with Cluster(folder, seed=1, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE") as cluster:
        # While server and workers start, all that needs neither is done.
        with ThreadPoolExecutor(1) as pool:
            installed = pool.submit(install, cluster, {"control-1": "control", "cpu-1": "cpu", "gpu-1": "gpu"})
            source, entries = build_archive(cluster, 12, num_words=3)
            # With torch loaded already, as no other process has it; 3: some recordings could not be used.
            assert main(["transcribe", source, "--lake", EMBEDDED, "--channels", "each"]) in (0, 3)
            installed.result()
        settings = parameters({"source": source}, POOLS, max_recordings=6, max_shards=2, prepare_processes=1)
        run = cluster.start_run("transcribe/daily", settings)
        state, message = cluster.wait_for_run(run, TIMEOUT_S)
        assert state == "COMPLETED", "\n".join([message, *map(cluster.processes.tail, ("control-1", "cpu-1", "gpu-1"))])
        yield source, entries


def test_every_recording_has_the_row_that_it_should_have(played: tuple[str, list[Entry]]):
    edits, wrong = check_entries(POOLS, *played)
    assert not wrong
    assert edits.rate == 0.0


def test_every_row_is_the_one_of_the_embedded_run(played: tuple[str, list[Entry]]):
    assert differences(EMBEDDED, POOLS) == []


def test_one_child_run_for_each_stage_of_the_assignment_did_the_work(played: tuple[str, list[Entry]]):
    with connect(POOLS) as connection:
        children = connection.execute(
            "select stage, count(*)::int, count(distinct parent_run_id)::int from runs "
            "where stage is not null group by stage order by stage"
        ).fetchall()
    assert children == [("decode", 1, 1), ("prepare", 1, 1)]
