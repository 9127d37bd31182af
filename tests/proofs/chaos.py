"""Thirty kills and a failing store: the lake ends row for row as an undisturbed run leaves it.

    python -m tests.proofs.chaos --kills 30 --seed 0

Whatever runs is killed with SIGKILL at random moments: workers, flow runs, the processes they read audio with, and
Prefect's server once. Dead workers and the dead server are started again, as a supervisor does; dead runs are not: the
schedule, a new run whenever the last one has ended, is all that brings them back.
"""

import argparse
import re
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import httpx

from tests.proofs import figures
from tests.proofs.installation import WORKERS, build_archive, install, parameters, run_embedded, start_worker
from tests.proofs.killer import Killer
from tests.proofs.lakes import check_entries, count_rows, differences
from tests.proofs.processes import WAIT_S
from tests.proofs.proof import prove
from tests.proofs.theatre import TERMINAL, Theatre

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
    "beat_deadline_s": 60.0,
    "stall_deadline_s": 300.0,
    "cancel_deadline_s": 10.0,
    "server_deadline_s": 240.0,
    "max_attempts": 8,
}
"""Deadlines shorter than at work, so that a proof ends within minutes; so is that of the automation for runs that never
began."""


class Schedule:
    """Starts the next run whenever the last one has ended: what a cron schedule does, with less patience."""

    def __init__(self, theatre: Theatre, settings: dict[str, Any], sources: list[str]) -> None:
        self._theatre, self._settings, self._sources = theatre, settings, sources
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
            state = self._theatre.state_of(self._current)
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
            self._current = self._theatre.start_run("transcribe/daily", settings, timeout_s=2.0)


def main() -> int:
    """Run the proof and print what was found."""
    parser = figures.make_parser(__doc__, 120)
    parser.add_argument("--kills", type=int, default=30, help="SIGKILLs, the server's included (30)")
    parser.add_argument(
        "--pause", type=float, default=3.0, help="between two shots on average, s; not every one hits (3)"
    )
    parser.add_argument("--timeout", type=float, default=1200.0, help="until the archive is done, s (1200)")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    return prove("chaos", options, play)


def play(theatre: Theatre, options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Run undisturbed and disturbed; figures, and what is not as it should be."""
    install(theatre)
    theatre.set_patience("never began", START_DEADLINE_S)
    source, entries = build_archive(theatre, options.recordings, num_words=24, num_batches=BATCHES)
    run_embedded(theatre, source, UNDISTURBED)
    settings = parameters({}, DISTURBED, max_recordings=5, max_shards=2, **PATIENCE)
    schedule = Schedule(theatre, settings, [f"{source}{batch}/" for batch in range(BATCHES)])
    killer = Killer(theatre, seed=options.seed, kills=options.kills, pause_s=options.pause)
    theatre.inject(RATES)
    disturb(theatre, schedule, killer, options.timeout)
    theatre.inject({})
    kills = Counter(kill.victim for kill in killer.kills)
    faults = theatre.fault_counts()
    found: dict[str, Any] = {
        "kills": len(killer.kills),
        **{f"killed: {victim}": count for victim, count in sorted(kills.items())},
        "runs that the schedule started": len(schedule.ends),
        "how they ended": dict(Counter(state for state, _ in schedule.ends)),
        **child_runs(theatre),
        "shards that a decoder found committed": theatre.company.count_in_logs(": committed already"),
        **{f"store: {kind}": count for kind, count in sorted(faults.items())},
        "all kills": [asdict(kill) for kill in killer.kills],
    }
    edits, failures = check_entries(DISTURBED, source, entries)
    failures = _unfinished(theatre, schedule, killer, options.timeout) + failures + differences(UNDISTURBED, DISTURBED)
    counts = count_rows(DISTURBED)
    found |= {
        "recordings / segments": f"{counts['recordings']} / {counts['segments']}",
        "recordings that are there twice": counts["doubled_recordings"],
        "WER": edits.rate,
    }
    return found, failures


def _unfinished(theatre: Theatre, schedule: Schedule, killer: Killer, timeout_s: float) -> list[str]:
    """Say what was left to do when time was up, and which runs it hangs on."""
    if schedule.is_done and killer.is_done:
        return []
    if schedule.is_done:
        return [f"done after {len(killer.kills)} kills: give more recordings, or a shorter pause"]
    going = [f"still going: {name}, {state}" for name, state in theatre.all_runs() if state not in TERMINAL]
    return [f"not done after {timeout_s:.0f} s: {len(killer.kills)} kills, {len(schedule.ends)} runs", *going]


def child_runs(theatre: Theatre) -> dict[str, int]:
    """Count child runs by stage and how they ended, and those of them that took the place of another."""
    counts: Counter[str] = Counter()
    for name, state in theatre.all_runs():
        if found := re.search(r"-(prepare|decode)-\d+-(\d+)$", name):
            counts[f"child runs: {found[1]} {state}"] += 1
            counts["child runs: second and further attempts"] += found[2] != "1"
    return dict(sorted(counts.items()))


def disturb(theatre: Theatre, schedule: Schedule, killer: Killer, timeout_s: float) -> None:
    """Let schedule, supervisor and killer take turns until the archive is done after the last kill."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        killer.turn()
        if not theatre.company.is_running("server"):
            theatre.start_prefect()
        for name, pool in WORKERS.items():
            if not theatre.company.is_running(name):
                start_worker(theatre, name, pool)
        if schedule.is_done:
            return
        schedule.turn()
        time.sleep(5 * WAIT_S)


if __name__ == "__main__":
    sys.exit(main())
