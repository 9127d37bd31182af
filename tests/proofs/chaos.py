"""Thirty kills and a failing store: the lake ends row for row as an undisturbed run leaves it.

    python -m tests.proofs.chaos --kills 30 --seed 0

Whatever runs is killed with SIGKILL at random moments: workers, flow runs, the processes they read audio with, and
Prefect's server once. Dead workers and the dead server are started again, as a supervisor does; dead runs are not: the
schedule, a new run whenever the last one has ended, is all that brings them back.
"""

import argparse
import random
import re
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import httpx
import psutil

from tests.proofs.cluster import (
    SERVER_COMMAND,
    TERMINAL,
    WORKERS,
    Cluster,
    build_archive,
    command_of,
    install,
    parameters,
    run_embedded,
    start_worker,
)
from tests.proofs.lakes import check_entries, count_rows, differences
from tests.proofs.processes import WAIT_S, kill
from tests.proofs.proof import make_parser, prove

OUTAGE_S = 5.0
"""How long the store is out altogether, once."""

SHARES = {"decode": 0.3, "prepare": 0.2, "pool process": 0.2, "worker": 0.15, "transcribe": 0.1}
"""Share of the kills by what is killed, so that every kind has its turn; the server is killed once, the rest are
decoders."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kill:
    """One SIGKILL."""

    after_s: float
    """From the beginning of the disturbed run, s."""
    victim: str
    process_id: int


class Killer:
    """Kills at random moments until it has killed enough."""

    def __init__(self, cluster: Cluster, *, seed: int, kills: int, pause_s: float) -> None:
        self._cluster, self._pause_s = cluster, pause_s
        self._random = random.Random(seed)
        self._started = self._next = time.monotonic()
        self._left = Counter({kind: round(share * kills) for kind, share in SHARES.items()})
        self._left["decode"] += kills - 1 - self._left.total()
        self._server_at = self._random.randrange(kills // 3, 2 * kills // 3 + 1)
        self.kills: list[Kill] = []
        self._draw()

    @property
    def is_done(self) -> bool:
        """Whether it has killed enough."""
        return not self._left.total()

    def turn(self) -> None:
        """Kill someone if it is time."""
        if self.is_done or time.monotonic() < self._next:
            return
        victims = self._victims()
        if len(self.kills) == self._server_at:
            self._kill("server", self._random.choice(victims["server"]))
            self._cluster.inject(outage_s=OUTAGE_S)
        elif kinds := [kind for kind, left in self._left.items() if left and victims[kind]]:
            kind = self._random.choice(kinds)
            self._left[kind] -= self._kill(kind, self._random.choice(victims[kind]))
        self._draw()

    def _kill(self, kind: str, victim: psutil.Process) -> bool:
        is_killed = kill(victim.pid)
        if is_killed:
            after_s = round(time.monotonic() - self._started, 1)
            self.kills.append(Kill(after_s=after_s, victim=kind, process_id=victim.pid))
            print(f"{after_s:7.1f} s  kill {len(self.kills)}: {kind}", flush=True)
        return is_killed

    def _draw(self) -> None:
        self._next = time.monotonic() + self._random.expovariate(1 / self._pause_s)

    def _victims(self) -> dict[str, list[psutil.Process]]:
        found: dict[str, list[psutil.Process]] = {kind: [] for kind in (*SHARES, "server", "")}
        for process in self._cluster.processes.members():
            found[kind_of(process)].append(process)
        return found


def kind_of(process: psutil.Process) -> str:
    """Name what a process is; "" for what is left alone."""
    command = command_of(process)
    if SERVER_COMMAND in command:
        return "server"
    if "prefect worker start" in command:
        return "worker"
    if "multiprocessing.spawn" in command or "multiprocessing.forkserver" in command:
        return "pool process"
    try:
        flow = process.environ().get("PREFECT__FLOW_NAME", "")
    except psutil.Error:
        return ""
    return flow if flow in SHARES else ""


UNDISTURBED, DISTURBED = "s3://archive/undisturbed", "s3://archive/disturbed"

RATES = {
    "error_500": 0.02, "slow_down": 0.02, "reset_before": 0.02, "reset_after": 0.02, "cut_body": 0.01,
    "slow_body": 0.01,
}  # fmt: skip
"""Share of the requests to S3 that go wrong while there are kills."""

BATCHES = 4
"""The archive grows in so many steps, each when the last one is done: there is work for as long as there are kills."""

START_DEADLINE_S = 90.0

PATIENCE = {
    "start_deadline_s": START_DEADLINE_S,
    "heartbeat_deadline_s": 60.0,
    "stall_deadline_s": 300.0,
    "cancel_deadline_s": 10.0,
    "server_deadline_s": 240.0,
    "max_attempts": 8,
}
"""Deadlines shorter than at work, so that a proof ends within minutes; so is that of the automation for runs that never
began."""


class Schedule:
    """Starts the next run whenever the last one has ended: what a cron schedule does, with less patience."""

    def __init__(self, cluster: Cluster, settings: dict[str, Any], sources: list[str]) -> None:
        self._cluster, self._settings, self._sources = cluster, settings, sources
        self._num_sources = 1
        self._current: str | None = None
        self.ends: list[tuple[str, str]] = []
        """Type and message of the last state of each run that ended."""

    @property
    def is_done(self) -> bool:
        """Whether a run over the whole archive was completed."""
        return self._num_sources > len(self._sources)

    def turn(self) -> None:
        """Look once."""
        if self._current is not None:
            state = self._cluster.state_of(self._current)
            if state[0] not in TERMINAL:
                return
            self.ends.append(state)
            print(f"{time.strftime('%H:%M:%S')}  run {len(self.ends)} ended {state[0]}: {state[1][:150]}", flush=True)
            self._current = None
            self._num_sources += state[0] == "COMPLETED"
        if not self.is_done:
            self.begin()

    def begin(self) -> None:
        """Start a run, unless the server is silent just now."""
        with suppress(httpx.HTTPError):
            settings = self._settings | {"source": self._sources[: self._num_sources]}
            self._current = self._cluster.start_run("transcribe/daily", settings, timeout_s=2.0)


def main() -> int:
    """Run the proof and print what was found."""
    parser = make_parser(__doc__, 120)
    parser.add_argument("--kills", type=int, default=30, help="SIGKILLs, the server's included (30)")
    parser.add_argument(
        "--pause", type=float, default=3.0, help="between two shots on average, s; not every one hits (3)"
    )
    parser.add_argument("--timeout", type=float, default=1200.0, help="until the archive is done, s (1200)")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    return prove("chaos", options, check)


def check(cluster: Cluster, options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Run undisturbed and disturbed; figures, and what is not as it should be."""
    install(cluster)
    cluster.set_patience("never began", START_DEADLINE_S)
    source, entries = build_archive(cluster, options.recordings, num_words=24, num_batches=BATCHES)
    run_embedded(cluster, source, UNDISTURBED)
    settings = parameters({}, DISTURBED, max_recordings=5, max_shards=2, **PATIENCE)
    schedule = Schedule(cluster, settings, [f"{source}{batch}/" for batch in range(BATCHES)])
    killer = Killer(cluster, seed=options.seed, kills=options.kills, pause_s=options.pause)
    cluster.inject(RATES)
    disturb(cluster, schedule, killer, options.timeout)
    cluster.inject({})
    kills = Counter(kill.victim for kill in killer.kills)
    faults = cluster.fault_counts()
    found: dict[str, Any] = {
        "kills": len(killer.kills),
        **{f"killed: {victim}": count for victim, count in sorted(kills.items())},
        "runs that the schedule started": len(schedule.ends),
        "how they ended": dict(Counter(state for state, _ in schedule.ends)),
        **child_runs(cluster),
        "shards that a decoder found committed": cluster.processes.count_in_logs(": committed already"),
        **{f"store: {kind}": count for kind, count in sorted(faults.items())},
        "all kills": [asdict(kill) for kill in killer.kills],
    }
    edits, failures = check_entries(DISTURBED, source, entries)
    failures = _unfinished(cluster, schedule, killer, options.timeout) + failures + differences(UNDISTURBED, DISTURBED)
    counts = count_rows(DISTURBED)
    found |= {
        "recordings / segments": f"{counts['recordings']} / {counts['segments']}",
        "recordings that are there twice": counts["doubled_recordings"],
        "WER": edits.rate,
    }
    return found, failures


def _unfinished(cluster: Cluster, schedule: Schedule, killer: Killer, timeout_s: float) -> list[str]:
    """Say what was left to do when time was up, and which runs it hangs on."""
    if schedule.is_done and killer.is_done:
        return []
    if schedule.is_done:
        return [f"done after {len(killer.kills)} kills: give more recordings, or a shorter pause"]
    going = [f"still going: {name}, {state}" for name, state in cluster.all_runs() if state not in TERMINAL]
    return [f"not done after {timeout_s:.0f} s: {len(killer.kills)} kills, {len(schedule.ends)} runs", *going]


def child_runs(cluster: Cluster) -> dict[str, int]:
    """Count child runs by stage and how they ended, and those of them that took the place of another."""
    counts: Counter[str] = Counter()
    for name, state in cluster.all_runs():
        if found := re.search(r"-(prepare|decode)-\d+-(\d+)$", name):
            counts[f"child runs: {found[1]} {state}"] += 1
            counts["child runs: second and further attempts"] += found[2] != "1"
    return dict(sorted(counts.items()))


def disturb(cluster: Cluster, schedule: Schedule, killer: Killer, timeout_s: float) -> None:
    """Let schedule, supervisor and killer take turns until the archive is done after the last kill."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        killer.turn()
        if not cluster.processes.is_running("server"):
            cluster.start_prefect()
        for name, pool in WORKERS.items():
            if not cluster.processes.is_running(name):
                start_worker(cluster, name, pool)
        if schedule.is_done:
            return
        schedule.turn()
        time.sleep(5 * WAIT_S)


if __name__ == "__main__":
    sys.exit(main())
