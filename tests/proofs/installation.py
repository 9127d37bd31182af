"""The whole installation in its cluster: server, pools, deployments, workers; and both ways through an archive.

What differs from an installation for work is small here and stands here: pauses and deadlines.
"""

import subprocess
import sys
import time
from typing import Any

from tests.proofs.archive import Entry, make_archive, write_entries
from tests.proofs.cluster import BIN, BUCKET, ROOT, Cluster

WORKERS = {"control-1": "control", "cpu-1": "cpu", "cpu-2": "cpu", "gpu-1": "gpu"}
"""Workers and their pools. The GPU's is one by its role: its model runs on the CPU."""

FAST: dict[str, Any] = {
    "mode": "pools",
    "prepare_processes": 2,
    "max_prepare_runs": 2,
    "max_decode_runs": 2,
    "poll_s": 1.0,
}
"""Settings of the pools; the parent looks at its child runs every second instead of every quarter of a minute."""


def install(cluster: Cluster, workers: dict[str, str] | None = None) -> None:
    """Start Prefect's server, deploy, and start workers: name and pool."""
    cluster.start_prefect()
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.deploy"], cwd=ROOT, env=cluster.processes.environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"nothing was deployed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    for name, pool in (WORKERS if workers is None else workers).items():
        start_worker(cluster, name, pool)


def start_worker(cluster: Cluster, name: str, pool: str) -> None:
    """Start a worker, or start it again under its name."""
    command = [sys.executable, "-m", "pipelines.start", pool, "--name", name]
    cluster.processes.start(name, command)


def build_archive(
    cluster: Cluster, num_recordings: int, *, num_words: int, num_batches: int = 1
) -> tuple[str, list[Entry]]:
    """Write an archive and put it into the store, under prefixes 0, 1 and so on if in several batches.

    Returns:
        The URI of its prefix, and what it holds.
    """
    folder = cluster.folder / "archive"
    entries = make_archive(folder, num_recordings, seed=cluster.seed, is_withheld=True, num_words=num_words)
    write_entries(cluster.folder / "entries.jsonl", entries)
    for batch in range(num_batches):
        prefix = "recordings" if num_batches == 1 else f"recordings/{batch}"
        cluster.upload([folder / entry.name for entry in entries[batch::num_batches]], prefix)
    return f"s3://{BUCKET}/recordings/", entries


def run_embedded(cluster: Cluster, source: str, lake: str) -> float:
    """Transcribe undisturbed, in one process without any server; the time it took, s."""
    started = time.monotonic()
    done = subprocess.run(
        [str(BIN / "dgasr"), "transcribe", source, "--lake", lake, "--format", "txt"],
        env=cluster.processes.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode not in (0, 3):  # 3: some recordings could not be used
        raise RuntimeError(f"the embedded run failed:\n{done.stderr[-3000:]}")
    return time.monotonic() - started


def parameters(
    what: dict[str, Any], lake: str, *, max_recordings: int, max_shards: int, **pools: Any
) -> dict[str, Any]:
    """Make the parameters of a run on the pools.

    Args:
        what: the parameter that says which recordings.
        lake: lake to commit to.
        max_recordings: most recordings in a shard.
        max_shards: most shards in an assignment.
        pools: what differs from `FAST`.
    """
    return what | {
        "lake": lake,
        "engine": {"model": "tiny", "device": "cpu"},
        "shard": {"max_recordings": max_recordings},
        "pools": FAST | {"assignment": {"max_shards": max_shards}} | pools,
    }
