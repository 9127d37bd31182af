"""What a proof ends with: a table for a person, the same as JSON in a file, and an exit code."""

import argparse
import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

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
