"""How a proof in a cluster goes: its logs stay, and it ends with figures and an exit code."""

import argparse
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.proofs.cluster import Cluster
from tests.proofs.processes import end_on_signals

ROOT = Path(__file__).parents[2]


def make_parser(description: str | None, recordings: int) -> argparse.ArgumentParser:
    """Make a command line with the flags that every proof has.

    Args:
        description: what `--help` says.
        recordings: size of the archive unless it is told.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=recordings, help=f"size of the archive ({recordings})")
    parser.add_argument("--seed", type=int, default=0, help="of the archive and of all that is drawn (0)")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "proofs", help="folder for figures and logs")
    return parser


def finish(name: str, options: argparse.Namespace, figures: dict[str, Any], failures: list[str]) -> int:
    """Print figures and failures, write them to `NAME.json`, and return the exit code."""
    for key, value in figures.items():
        print(f"{key:<44} {f'{value:.3f}' if isinstance(value, float) else value}")
    for failure in failures[:20]:
        print(f"FAILED: {failure}")
    if len(failures) > 20:
        print(f"FAILED: … and {len(failures) - 20} more")
    print(f"{name}: {'failed' if failures else 'passed'} (seed {options.seed}, {options.recordings} recordings)")
    options.out.mkdir(parents=True, exist_ok=True)
    report = {"proof": name, "commit": _commit(), "machine": _machine(), "seed": options.seed,
              "recordings": options.recordings, "figures": figures, "failures": failures}  # fmt: skip
    (options.out / f"{name}.json").write_text(json.dumps(report, indent=1, default=str) + "\n", encoding="utf-8")
    return 1 if failures else 0


def say(what: str, figures: dict[str, Any]) -> None:
    """Print figures of one step on a line while the proof goes on."""
    shown = (f"{key} {f'{value:.2f}' if isinstance(value, float) else value}" for key, value in figures.items())
    print(f"{time.strftime('%H:%M:%S')}  {what}: {'; '.join(shown)}", flush=True)


def _commit() -> str:
    found = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return found.stdout.strip()


def _machine() -> str:
    cores = len(os.sched_getaffinity(0))
    return f"{platform.machine()}, {cores} cores, load {os.getloadavg()[0]:.1f} at the end"


Check = Callable[[Cluster, argparse.Namespace], tuple[dict[str, Any], list[str]]]
"""What is done in the cluster: figures, and what is not as it should be."""

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
"""For every process: they share the cores, and more threads would fight over them."""


def prove(name: str, options: argparse.Namespace, check: Check) -> int:
    """Check in a cluster, keep its logs whatever happens, print and write the figures, and return the exit code.

    Args:
        name: of the proof, and of what it leaves in `options.out`.
        options: the flags of `make_parser`, and those that `check` looks at.
        check: the proof.
    """
    end_on_signals()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"dgasr-{name}-") as folder:
        with Cluster(Path(folder), seed=options.seed, **ONE_THREAD) as cluster:
            try:
                found, failures = check(cluster, options)
            finally:
                keep_logs(cluster, options.out / f"{name}-logs")
        found["whole proof, s"] = time.monotonic() - started
        return finish(name, options, found, failures)


def keep_logs(cluster: Cluster, folder: Path) -> None:
    """Copy the logs out of the cluster's folder before it vanishes."""
    folder.mkdir(parents=True, exist_ok=True)
    for log in (cluster.folder / "logs").iterdir():
        (folder / log.name).write_bytes(log.read_bytes())
