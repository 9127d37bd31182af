"""Memory of the flow: whether it grows with the number of recordings, and how much ten hours in one take.

python -m tests.proofs.memory --recordings 2000 --hours 10
"""

import argparse
import os
import sys
from pathlib import Path

import soundfile

from dgasr.samples import SAMPLES
from tests.proofs.archive import make_archive
from tests.proofs.cluster import Cluster
from tests.proofs.measured import Figures, measure
from tests.proofs.proof import make_parser, prove, say

MAX_GROWTH_MB = 2.0
"""Growth of resident memory over 1,000 recordings that still counts as none: what the allocator moves."""

MAX_MB = 1000.0
MADE = 200
"""Different recordings; more files than these are the same again under other names."""


def main() -> int:
    """Run the proof and print what was found."""
    parser = make_parser(__doc__, 2000)
    parser.add_argument("--hours", type=int, default=10, help="length of the long recording (10)")
    options = parser.parse_args()
    return prove("memory", options, check)


def check(cluster: Cluster, options: argparse.Namespace) -> tuple[Figures, list[str]]:
    """Measure both; figures, and what is not as it should be."""
    cluster.start_prefect()
    write_many(cluster.folder, options.recordings, options.seed)
    long = f"{options.hours} h recording"
    write_hours(cluster.folder / "long.flac", options.hours)
    measured = {}
    for name, source in ((f"{options.recordings} recordings", "many"), (long, "long.flac")):
        lake = cluster.folder / f"lake-{source}"
        measured[name] = measure("flow", cluster.folder / source, lake, cluster.processes.environment)
        say(name, measured[name])
    found = {f"{name}: {key}": value for name, values in measured.items() for key, value in values.items()}
    growth_mb = found.pop(f"{options.recordings} recordings: growth, MB") * 1000 / (options.recordings / 2)
    del found[f"{long}: growth, MB"]
    failures, peak_mb = [], found[f"{long}: peak memory, MB"]
    if growth_mb > MAX_GROWTH_MB:
        failures.append(f"memory grows by {growth_mb:.1f} MB over 1,000 recordings, {MAX_GROWTH_MB} was wanted")
    if peak_mb > MAX_MB:
        failures.append(f"{long} took {peak_mb:.0f} MB, at most {MAX_MB:.0f} was wanted")
    return found | {"growth of memory over 1,000 recordings, MB": growth_mb}, failures


def write_many(folder: Path, number: int, seed: int) -> None:
    """Write short recordings into `folder/many`."""
    make_archive(folder / "made", min(number, MADE), seed=seed, is_withheld=False, num_words=6, has_bad=False)
    (folder / "many").mkdir()
    made = sorted((folder / "made").iterdir())
    for index in range(number):
        path = made[index % len(made)]
        os.link(path, folder / "many" / f"{index:05d}_{path.name}")


def write_hours(path: Path, hours: int) -> None:
    """Write one long recording: the sample of several minutes, again and again."""
    waveform, rate_hz = soundfile.read(SAMPLES / "several_minutes_with_silences.ogg", dtype="int16")
    with soundfile.SoundFile(path, "w", rate_hz, 1, format="FLAC") as file:
        for _ in range(round(hours * 3600 * rate_hz / waveform.size) + 1):
            file.write(waveform)


if __name__ == "__main__":
    sys.exit(main())
