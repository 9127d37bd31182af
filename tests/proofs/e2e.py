"""An archive in S3 through a real Prefect server, two work pools and workers: every row as the embedded run has it.

    python -m tests.proofs.e2e --recordings 200

Two lakes are made of one archive, a tenth of which is bad: one by `dgasr transcribe` in one process, one by the
deployment `transcribe/daily` with two CPU workers and one in the GPU's role. They must be equal row for row.
"""

import argparse
import sys
import time
from typing import Any

from dgasr.stages.plan import AssignmentConfig
from tests.proofs.cluster import Cluster, build_archive, install, parameters, run_embedded
from tests.proofs.lakes import check_entries, count_rows, differences
from tests.proofs.proof import make_parser, prove

EMBEDDED, POOLS = "s3://archive/embedded", "s3://archive/pools"
TIMEOUT_S = 900.0

MILLION_S = 1e6 * 60.0
"""A million recordings of a minute each: what the server's cost is extrapolated to, s of audio."""


def main() -> int:
    """Run the proof and print what was found."""
    parser = make_parser(__doc__, 200)
    parser.add_argument("--shard", type=int, default=10, help="most recordings in a shard (10)")
    parser.add_argument("--assignment", type=int, default=5, help="most shards in an assignment (5)")
    options = parser.parse_args()
    return prove("e2e", options, check)


def check(cluster: Cluster, options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Run both ways; figures, and what is not as it should be."""
    install(cluster)
    source, entries = build_archive(cluster, options.recordings, num_words=6)
    cpu_idle, _ = cluster.server_cost()
    embedded_s = run_embedded(cluster, source, EMBEDDED)
    cpu_before, bytes_before = cluster.server_cost()
    started = time.monotonic()
    settings = parameters({"source": source}, POOLS, max_recordings=options.shard, max_shards=options.assignment)
    state, message = cluster.wait_for_run(cluster.start_run("transcribe/daily", settings), TIMEOUT_S)
    pools_s = time.monotonic() - started
    cpu_after, bytes_after = cluster.server_cost()
    if state != "COMPLETED":
        return {"state": state}, [f"the run ended {state}: {message}"]
    edits, failures = check_entries(POOLS, source, entries)
    embedded_edits, _ = check_entries(EMBEDDED, source, entries)
    failures += differences(EMBEDDED, POOLS)
    counts = count_rows(POOLS)
    assert edits.rate is not None
    assert embedded_edits.rate is not None
    num_assignments = -(-options.recordings // (options.shard * options.assignment))
    idle_share = (cpu_before - cpu_idle) / embedded_s
    cpu_s = (cpu_after - cpu_before - idle_share * pools_s) / num_assignments
    num_million = MILLION_S / AssignmentConfig().target_s
    found = {
        "message of the run": message,
        "recordings / segments": f"{counts['recordings']} / {counts['segments']}",
        "recordings that are there twice": counts["doubled_recordings"],
        "of them bad on purpose": sum(entry.status != "ok" for entry in entries),
        "WER embedded": embedded_edits.rate,
        "WER pools": edits.rate,
        "embedded run, s": embedded_s,
        "run on the pools, s": pools_s,
        "assignments": num_assignments,
        "server: share of a core while idle": idle_share,
        "server: CPU s per assignment": cpu_s,
        "server: bytes per assignment": (bytes_after - bytes_before) // num_assignments,
        "10^6 recordings of a minute: assignments": round(num_million),
        "10^6 recordings: server CPU s": cpu_s * num_million,
        "10^6 recordings: server MB": (bytes_after - bytes_before) / num_assignments * num_million / 1e6,
    }
    return found, failures


if __name__ == "__main__":
    sys.exit(main())
