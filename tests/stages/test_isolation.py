import os
import select
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dgasr.errors import ConfigError, TransientError
from dgasr.records import Recording, Shard
from dgasr.stages.isolation import Processes, settle
from tests.stages import deadly

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    with Processes(2, lambda count: None) as processes:
        yield processes


def test_work_whose_process_dies_has_no_result_and_the_rest_is_done(processes: Processes):
    found = list(processes.run_each(deadly.double_or_die, [(n,) for n in (1, -1, 2, 3)]))
    assert len(found) == 4
    results = {arguments: result for (arguments,), result in found}
    assert results[-1] is None
    # At most the one neighbour went down with it.
    assert sum(result is None for result in results.values()) <= 2
    assert all(result in (None, 2 * number) for number, result in results.items())


def test_a_fault_that_nobody_foresaw_counts_like_a_death(processes: Processes):
    assert processes.run(deadly.fail, 1) is None
    assert processes.run(deadly.double, 1) == 2


def test_work_that_stands_still_counts_like_a_death(capfd: pytest.CaptureFixture[str]):
    with Processes(1, lambda count: None, stall_s=0.1) as processes:
        assert processes.run(deadly.stand_still, 1) is None
    assert "stand_still" in capfd.readouterr().err  # where it stood


def test_what_the_work_raises_on_purpose_is_raised(processes: Processes):
    with pytest.raises(ConfigError, match="no such"):
        processes.run(refuse)


def refuse() -> int:
    raise ConfigError("no such thing")


def test_processes_end_with_a_parent_that_is_killed(tmp_path: Path):
    pid_file = tmp_path / "pid"
    program = (
        "from dgasr.stages.isolation import Processes\nfrom tests.stages import deadly\n"
        "with Processes(1, lambda count: print(count, flush=True)) as processes:\n"
        f"    processes.run(deadly.count_for_ever, {str(pid_file)!r})\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE)
    while parent.stdout.readline().strip() in (b"", b"0"):
        pass  # the child has begun to count
    child = os.pidfd_open(int(pid_file.read_text()))
    parent.kill()
    parent.wait()
    assert select.select([child], [], [], 20)[0], "the child goes on without its parent"


def test_processes_are_stopped_where_one_of_them_finds_that_it_is_no_use(tmp_path: Path):
    with pytest.raises(ConfigError), Processes(2, lambda count: None) as processes:  # noqa: PT012
        calls = iter([(f"{tmp_path}/pid",), ("refuse",)])
        for _ in processes.run_each(count_or_refuse, calls):
            pass


def count_or_refuse(what: str) -> int:
    return refuse() if what == "refuse" else deadly.count_for_ever(what)


def test_no_processes_are_refused():
    with pytest.raises(ConfigError, match="num_processes"):
        Processes(0, lambda count: None)


@pytest.fixture
def shard() -> Shard:
    now = datetime.now(UTC)
    found = [Recording(uri=f"s3://a/{n}.wav", etag="e", size_bytes=1, modified_at=now) for n in range(9)]
    return Shard(shard_id="s1", recordings=tuple(found))


def test_all_recordings_that_end_two_processes_are_left_out_and_no_other(shard: Shard):
    """Once may be somebody else's doing."""
    killing, tries, done = {shard.recordings[n] for n in (0, 7, 8)}, [], []

    def survives(recording) -> bool:
        tries.append(recording)
        return recording not in killing and (recording != shard.recordings[3] or tries.count(recording) > 1)

    assert settle(shard, lambda crashing: done.append(crashing) or (len(done) > 1 or None), survives) is True
    assert done == [frozenset(), {recording.recording_id for recording in killing}]


@pytest.mark.parametrize(
    ("survives", "error", "message"),
    [(False, ConfigError, "before it has touched"), (True, TransientError, "more memory")],
)
def test_nobody_is_blamed_where_processes_die_of_nothing_or_of_no_recording_alone(shard, survives, error, message):
    with pytest.raises(error, match=message):
        settle(shard, lambda crashing: None, lambda recording: survives)
