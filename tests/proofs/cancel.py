"""Cancelling: everything of a run ends within a minute, the lake is right, and the next run does the rest.

    python -m tests.proofs.cancel --recordings 24

One run is cancelled while a child reads audio, the next one while a child decodes and has committed something; both at
a store that is so slow by then that the child is surely in the middle of its work. The third run does the rest.
"""

import argparse
import re
import sys
import time
from collections.abc import Callable
from typing import Any

import httpx

from dgasr.lake.check import check_lake
from dgasr.stages.heartbeat import read_heartbeat
from dgasr.stages.plan import RunFolder
from dgasr.store import list_uris
from tests.proofs.cluster import BUCKET, TERMINAL, Cluster, build_archive, command_of, install, parameters
from tests.proofs.lakes import check_entries, count_rows
from tests.proofs.processes import WAIT_S
from tests.proofs.proof import make_parser, prove

LAKE = f"s3://{BUCKET}/lake"
WORKERS = {"control-1": "control", "cpu-1": "cpu", "gpu-1": "gpu"}
MAX_S = 60.0
TIMEOUT_S = 240.0
"""For what should take seconds: to give up on, not to judge by."""

SLOW = {"slow_body": 1.0}
"""Every answer of the store takes two seconds."""

CHILD = re.compile(r"(?P<run>.+)-(?P<stage>prepare|decode)-\d+-\d+")
"""Name of a child's flow run."""


def main() -> int:
    """Run the proof and print what was found."""
    options = make_parser(__doc__, 24).parse_args()
    return prove("cancel", options, check)


def check(cluster: Cluster, options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Cancel twice, complete, and compare; figures, and what is not as it should be."""
    install(cluster, WORKERS)
    source, entries = build_archive(cluster, options.recordings, num_words=6)
    settings = parameters({"source": source}, LAKE, max_recordings=2, max_shards=6, prepare_processes=1)
    standing = {process.pid for process in cluster.processes.members()}
    found: dict[str, Any] = {}
    failures = []

    run = cluster.start_run("transcribe/daily", settings)
    _wait_until(lambda: _is_at_work(cluster, "prepare"), "a child run reads audio", cluster)
    cluster.inject(SLOW)
    _wait_until(lambda: _has_readers(cluster), "it has started its processes", cluster)
    found["cancelled while reading: all ended after, s"] = _cancel(cluster, run, standing)
    cluster.inject({})
    failures += _faults()

    run = cluster.start_run("transcribe/daily", settings)
    _wait_until(lambda: _is_at_work(cluster, "decode"), "a child run decodes", cluster)
    cluster.inject(SLOW)
    log = f"{LAKE}/transcripts/_delta_log/"
    _wait_until(lambda: any("0001.json" in uri for uri in list_uris(log)), "a shard is committed", cluster)
    found["cancelled while decoding: all ended after, s"] = _cancel(cluster, run, standing)
    cluster.inject({})
    failures += _faults()
    found["recordings committed before the last run"] = committed = count_rows(LAKE)["recordings"]

    state, message = cluster.wait_for_run(cluster.start_run("transcribe/daily", settings), TIMEOUT_S)
    found["message of the last run"] = message
    if state != "COMPLETED":
        failures.append(f"the last run ended {state}: {message}")
    failures += _faults() + check_entries(LAKE, source, entries)[1]
    failures += [f"{what}: {value:.0f} s" for what, value in found.items() if what.endswith("s") and value > MAX_S]
    if committed >= options.recordings:
        failures.append("nothing was left to do for the last run: give more recordings")
    return found | count_rows(LAKE), failures


def _is_at_work(cluster: Cluster, stage: str) -> bool:
    """Say whether a child run of this stage runs and has begun with a shard."""
    for name, state in cluster.all_runs():
        if state == "RUNNING" and (child := CHILD.fullmatch(name)) and child["stage"] == stage:
            folder = f"{RunFolder(lake_uri=LAKE, run_id=child['run']).uri}/heartbeats"
            heartbeat = read_heartbeat(f"{folder}/{name.removeprefix(child['run'] + '-')}.json")
            if heartbeat is not None and heartbeat.shard_ids:
                return True
    return False


def _has_readers(cluster: Cluster) -> bool:
    """Say whether a process reads audio for a child run."""
    return any("multiprocessing.spawn" in command_of(process) for process in cluster.processes.members())


def _cancel(cluster: Cluster, run: str, standing: set[int]) -> float:
    """Cancel a run as a person does, and wait until nothing of it is left.

    Args:
        cluster: where it runs.
        run: its flow run.
        standing: ids of the processes that stay.

    Returns:
        Time from the request to the end of the last process and the last state, s.
    """
    cancelled_at = time.monotonic()
    cluster.cancel(run)
    shown: dict[str, str] = {}

    def is_over() -> bool:
        states = {name: state for name, state in cluster.all_runs() if name not in shown or shown[name] not in TERMINAL}
        left = [process for process in cluster.processes.members() if process.pid not in standing]
        now = {**states, **{f"process {process.pid}": command_of(process)[:100] for process in left}}
        gone = [name for name in shown if name.startswith("process") and name not in now]
        for name, value in now.items():
            if shown.get(name) != value:
                _say(cancelled_at, f"{name}: {value}")
        for name in gone:
            _say(cancelled_at, f"{name} ended")
            del shown[name]
        shown.update(now)
        return not left and all(state in TERMINAL for state in states.values())

    _wait_until(is_over, "all of a cancelled run ended", cluster)
    return time.monotonic() - cancelled_at


def _say(since: float, what: str) -> None:
    print(f"  {time.monotonic() - since:5.1f} s  {what}", flush=True)


def _faults() -> list[str]:
    """Check the lake; a line for each fault."""
    return [found.line() for found in check_lake(LAKE, is_deep=True).findings if found.severity == "fault"]


def _wait_until(is_true: Callable[[], bool], what: str, cluster: Cluster) -> None:
    """Wait for something.

    Raises:
        RuntimeError: the time is up; with what the workers said last.
    """
    started = time.monotonic()
    while not _is_true_now(is_true):
        if time.monotonic() - started > TIMEOUT_S:
            logs = "\n".join(f"{name}:\n{cluster.processes.tail(name)}" for name in WORKERS)
            raise RuntimeError(f"after {TIMEOUT_S:.0f} s it is not so that {what}.\n{cluster.all_runs()}\n{logs}")
        time.sleep(2 * WAIT_S)
    print(f"{what}: after {time.monotonic() - started:.1f} s", flush=True)


def _is_true_now(is_true: Callable[[], bool]) -> bool:
    try:
        return is_true()
    except httpx.TransportError:  # a busy server is asked again
        return False


if __name__ == "__main__":
    sys.exit(main())
