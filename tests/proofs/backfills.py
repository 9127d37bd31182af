"""Two backfills at once over the same archive, with plans that overlap: no row doubled, and none missing.

    python -m tests.proofs.backfills --recordings 60

Both go through the deployment `backfill/archive` and share the workers. The second takes two thirds of the archive and
cuts other shards, so that nearly every recording of the overlap is in two shards of different names. What readers then
see is compared with an undisturbed run.
"""

import argparse
import sys
import time
from typing import Any

from tests.proofs.cluster import BUCKET, WORKERS, Cluster, build_archive, install, parameters, run_embedded
from tests.proofs.lakes import check_entries, count_rows, differences
from tests.proofs.proof import make_parser, prove, say

LAKE, ALONE = f"s3://{BUCKET}/lake", f"s3://{BUCKET}/alone"
TIMEOUT_S = 900.0


def main() -> int:
    """Run the proof and print what was found."""
    options = make_parser(__doc__, 60).parse_args()
    return prove("backfills", options, check)


def check(cluster: Cluster, options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Run two backfills at once, and one run alone; figures, and what is not as it should be."""
    install(cluster, WORKERS | {"control-2": "control"})
    source, entries = build_archive(cluster, options.recordings, num_words=6)
    listed = cluster.folder / "second_half.txt"
    middle = options.recordings // 3
    listed.write_text("".join(f"{source}{entry.name}\n" for entry in entries[middle:]), encoding="utf-8")
    whole, half = {"sources": [source]}, {"uri_list": str(listed)}
    started = time.monotonic()
    runs = [start(cluster, whole, 7), start(cluster, half, 5)]
    states = []
    for name, run in zip(("first of two", "second of two"), runs, strict=True):
        states.append(cluster.wait_for_run(run, TIMEOUT_S))
        say(name, {"state": states[-1][0], "message": states[-1][1]})
    both_s = time.monotonic() - started
    alone_s = run_embedded(cluster, source, ALONE)
    failures = [f"a backfill ended {state}: {message}" for state, message in states if state != "COMPLETED"]
    if failures:
        return {"states": states}, failures
    _, failures = check_entries(LAKE, source, entries)
    failures += differences(ALONE, LAKE)
    counts = count_rows(LAKE)
    num_overtaken = cluster.processes.count_in_logs(": committed already")
    if not num_overtaken:
        failures.append("no shard was found committed by the other: the two did not overlap, and nothing was shown")
    found = {
        "first of two": states[0][1],
        "second of two": states[1][1],
        "both, s": both_s,
        "alone, in one process, s": alone_s,
        "recordings / segments": f"{counts['recordings']} / {counts['segments']}",
        "shards that were found committed": num_overtaken,
        "recordings that are there twice": counts["doubled_recordings"],
    }
    return found, failures


def start(cluster: Cluster, selection: dict[str, Any], max_recordings: int) -> str:
    """Start a backfill of a selection; shards of another size are other shards."""
    what = {"selection": selection}
    settings = parameters(what, LAKE, max_recordings=max_recordings, max_shards=3, queue="backfill")
    return cluster.start_run("backfill/archive", settings)


if __name__ == "__main__":
    sys.exit(main())
