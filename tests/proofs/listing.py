"""Listing a million keys through boto3, leaving out what the lake holds, and planning: time and memory.

    python -m tests.proofs.listing --recordings 1000000

The endpoint is a stub that answers ListObjectsV2 only: the client's side is real, the server costs next to nothing.
Each measurement runs in a process of its own, so that its peak of memory is its own.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from dgasr import store
from dgasr.lake.ledger import commit_shard, committed_recordings
from dgasr.lake.rows import ShardRows, recording_row
from dgasr.records import Recording, Shard
from dgasr.stages.counts import peak_memory_bytes
from dgasr.stages.plan import AssignmentConfig, ShardConfig, plan_shards, write_assignments
from dgasr.stages.selection import Selection, find_backlog
from tests.proofs import cluster
from tests.proofs.processes import ProcessGroup, end_on_signals, free_ports
from tests.proofs.proof import finish, make_parser

RECIPE_ID = "0123456789abcdef"
SOURCE = "s3://archive/recordings/"
FIRST_DAY = datetime(2020, 1, 1, tzinfo=UTC)
PER_DAY = 1000
PAGE = 1000

ENTRY = "<Contents><Key>{}</Key><LastModified>{}</LastModified><ETag>&quot;{}&quot;</ETag><Size>{}</Size></Contents>"
ANSWER = (
    '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    "<Name>archive</Name><MaxKeys>1000</MaxKeys><IsTruncated>{}</IsTruncated>{}{}</ListBucketResult>"
)


def recording_of(number: int) -> Recording:
    """Return the object of this number: about a minute of Vorbis, a thousand of them a day."""
    day = FIRST_DAY + timedelta(days=number // PER_DAY)
    return Recording(
        uri=f"s3://archive/recordings/{day:%Y/%m/%d}/{number:08d}.ogg",
        etag=hashlib.md5(str(number).encode()).hexdigest(),
        size_bytes=300_000 + number * 7919 % 120_000,
        modified_at=day + timedelta(seconds=number % PER_DAY),
    )


class Stub(BaseHTTPRequestHandler):
    """Answers ListObjectsV2, page by page; the continuation token is the number of the next object."""

    protocol_version = "HTTP/1.1"
    num_recordings = 0

    def do_GET(self) -> None:
        """Answer with a page."""
        query = parse_qs(urlsplit(self.path).query)
        start = int(query.get("continuation-token", ["0"])[0])
        end = min(start + PAGE, self.num_recordings)
        listed = map(recording_of, range(start, end))
        entries = "".join(
            ENTRY.format(
                r.uri.removeprefix("s3://archive/"), f"{r.modified_at:%Y-%m-%dT%H:%M:%S.000Z}", r.etag, r.size_bytes
            )
            for r in listed
        )
        token = f"<NextContinuationToken>{end}</NextContinuationToken>" if end < self.num_recordings else ""
        data = ANSWER.format("true" if token else "false", token, entries).encode()
        self.send_response_only(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        """Stay quiet."""


def list_only(lake: str) -> dict[str, int]:
    """List, and keep nothing."""
    return {"listed": sum(1 for _ in store.list_objects(SOURCE))}


def plan_all(lake: str) -> dict[str, int]:
    """List, plan and write down a first run, where nothing is held."""
    with tempfile.TemporaryDirectory() as folder:
        backlog = find_backlog(Selection(sources=(SOURCE,)), f"{folder}/lake", RECIPE_ID)
        shards = plan_shards(backlog, RECIPE_ID, ShardConfig())
        counts = [len(found.shards) for _, found in write_assignments(shards, folder, AssignmentConfig())]
    return {"assignments": len(counts), "shards": sum(counts), "recordings": backlog.num_new}


def read_ledger(lake: str) -> dict[str, int]:
    """Read the ledger."""
    return {"held": len(committed_recordings(lake, RECIPE_ID))}


def plan_none(lake: str) -> dict[str, int]:
    """Read the ledger, list, plan, and note what is gone where everything is held: what the daily run costs."""
    backlog = find_backlog(Selection(sources=(SOURCE,)), lake, RECIPE_ID)
    shards = list(plan_shards(backlog, RECIPE_ID, ShardConfig()))
    gone, back = backlog.note_presence("listing")
    return {"held": backlog.num_held, "shards": len(shards), "gone or back": gone + back}


def plan_again(lake: str) -> dict[str, int]:
    """Plan to transcribe everything again though it is held: what a forced backfill costs before it begins."""
    forced = Selection(sources=(SOURCE,), force=True).starting_at(datetime.now(UTC))
    backlog = find_backlog(forced, lake, RECIPE_ID)
    shards = list(plan_shards(backlog, RECIPE_ID, ShardConfig(), backlog.take))
    return {"again": backlog.num_again, "shards": len(shards)}


MEASURED: dict[str, Callable[[str], dict[str, int]]] = {
    "imports only": lambda lake: {},
    "list": list_only,
    "list, plan and write assignments": plan_all,
    "read the ledger": read_ledger,
    "read the ledger, list, plan: all held": plan_none,
    "read the ledger, list, plan: all again": plan_again,
}


def write_lake(lake: str, num_recordings: int) -> None:
    """Commit a row for every object, in shards as large as the largest that are planned."""
    recordings = map(recording_of, range(num_recordings))
    for shard in plan_shards(recordings, RECIPE_ID, ShardConfig(target_s=1e12)):
        rows = [_row(recording, shard) for recording in shard.recordings]
        commit_shard(lake, ShardRows(
            recipe_id=RECIPE_ID, shard_id=shard.shard_id, run_id="listing", recordings=rows, segments=[]
        ))  # fmt: skip


def _row(recording: Recording, shard: Shard) -> dict[str, object]:
    return recording_row(
        recording, shard_id=shard.shard_id, run_id="listing", transcribed_at=FIRST_DAY, status="rejected",
        reason="empty_file", message="made for a measurement", report=None, transcripts=[],
    )  # fmt: skip


def main() -> int:
    """Measure and print, or serve or measure one thing for the process that does."""
    parser = make_parser(__doc__, 1_000_000)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--lake", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        Stub.num_recordings = options.recordings
        ThreadingHTTPServer(("127.0.0.1", options.serve), Stub).serve_forever()
    if options.measure:
        print(json.dumps(_measure(options.measure, options.lake)))
        return 0
    end_on_signals()
    with tempfile.TemporaryDirectory(prefix="dgasr-listing-") as folder:
        return _run(options, Path(folder))


def _run(options: argparse.Namespace, folder: Path) -> int:
    lake = str(folder / "lake")
    started = time.monotonic()
    write_lake(lake, options.recordings)
    found: dict[str, object] = {"lake written in, s": time.monotonic() - started}
    (port,) = free_ports(1)
    processes = ProcessGroup(folder, cluster.s3_environment(f"http://127.0.0.1:{port}"))
    module = [sys.executable, "-m", "tests.proofs.listing", "--recordings", str(options.recordings)]
    try:
        processes.start("stub", [*module, "--serve", str(port)])
        processes.wait_until(
            lambda: cluster.answers(f"http://127.0.0.1:{port}/archive?list-type=2"), "the stub", "stub"
        )
        for name in MEASURED:
            command = [*module, "--measure", name, "--lake", lake]
            done = subprocess.run(command, env=processes.environment, capture_output=True, text=True, check=True)
            found |= {f"{name}: {key}": value for key, value in json.loads(done.stdout).items()}
    finally:
        processes.end()
    expected = {"list: listed", "list, plan and write assignments: recordings", "read the ledger: held",
                "read the ledger, list, plan: all held: held",
                "read the ledger, list, plan: all again: again"}  # fmt: skip
    failures = [f"{key} is {found[key]}" for key in sorted(expected) if found[key] != options.recordings]
    return finish("listing", options, found, failures)


def _measure(name: str, lake: str) -> dict[str, object]:
    started, cpu_started = time.monotonic(), time.process_time()
    counts = MEASURED[name](lake)
    return counts | {
        "wall, s": time.monotonic() - started,
        "CPU, s": time.process_time() - cpu_started,
        "peak memory, MB": peak_memory_bytes() / 1e6,
    }


if __name__ == "__main__":
    sys.exit(main())
