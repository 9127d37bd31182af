"""A whole installation on loopback: S3 endpoint, fault proxy, Prefect server, work pools, workers; all processes.

    with Cluster(folder, seed=0) as cluster:
        install(cluster)
        source, entries = build_archive(cluster, 200, num_words=6)

It ends with the block, whoever started what in it. While it is open, `AWS_*` of this process point at the proxy. What
differs from an installation for work is small here and stands here: pauses and deadlines.
"""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import httpx
import psutil

from dgasr.store import s3
from tests.proofs.archive import Entry, make_archive, write_entries
from tests.proofs.faults import CONTROL_PATH
from tests.proofs.processes import MODEL, WAIT_S, ProcessGroup, free_ports

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
BUCKET = "archive"
SERVER_COMMAND = "prefect server start"
TERMINAL = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}


class Cluster:
    """What there is to prove things in; used in a `with` block."""

    def __init__(self, folder: Path, *, seed: int, **environment: str) -> None:
        """Find free ports; nothing is started yet.

        Args:
            folder: for logs, Prefect's home and the archive; made if need be.
            seed: of the faults.
            environment: what all processes get besides what they need.
        """
        self.folder, self.seed = folder, seed
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        ports = free_ports(3)
        self.store_url, self.proxy_url = (f"http://127.0.0.1:{port}" for port in ports[:2])
        self.api_url = f"http://127.0.0.1:{ports[2]}/api"
        self._s3 = s3_environment(self.proxy_url)
        self._before = {name: os.environ.get(name) for name in self._s3}
        prefect = _prefect_environment(folder / "prefect", self.api_url)
        self.processes = ProcessGroup(folder / "logs", {**self._s3, **prefect, "PYTHONPATH": str(ROOT), **environment})

    def __enter__(self) -> "Cluster":
        try:
            self._start_store()
        except BaseException:
            self.processes.end()
            raise
        os.environ.update(self._s3)
        s3._client_of.cache_clear()  # it keeps the address that it was made for
        return self

    def __exit__(self, *error: object) -> None:
        self.processes.end()
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        s3._client_of.cache_clear()

    def upload(self, paths: Iterable[Path], prefix: str) -> str:
        """Put files into the bucket, past the proxy; returns the URI of the prefix, with a slash at its end."""
        client = boto3.client("s3", endpoint_url=self.store_url)

        def put(path: Path) -> None:
            client.put_object(Bucket=BUCKET, Key=f"{prefix}/{path.name}", Body=path.read_bytes())

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(put, paths))
        return f"s3://{BUCKET}/{prefix}/"

    def inject(self, rates: dict[str, float] | None = None, outage_s: float = 0.0) -> None:
        """Let the store fail: shares of requests by kind (`None`: as before), and altogether for a while."""
        wanted = {"rates": rates, "outage_s": outage_s}
        httpx.post(f"{self.proxy_url}{CONTROL_PATH}", json=wanted, timeout=60).raise_for_status()

    def fault_counts(self) -> dict[str, int]:
        """Return how many requests there were, and how many of them went wrong, by kind."""
        return dict(httpx.get(f"{self.proxy_url}{CONTROL_PATH}", timeout=60).raise_for_status().json())

    def start_prefect(self) -> None:
        """Start the server, or start it again on the same database."""
        port = self.api_url.rpartition(":")[2].partition("/")[0]
        process_id = self.processes.start("server", [sys.executable, "-m", "pipelines.start", "server", "--port", port])
        # Where other work keeps the server waiting in the middle of its transactions, SQLite refuses all the others.
        with suppress(OSError):  # needs root, and a kernel that shares out its time by session
            Path(f"/proc/{process_id}/autogroup").write_text("-10", encoding="ascii")
        self.processes.wait_until(lambda: answers(f"{self.api_url}/health"), "Prefect's server", "server")

    def server_cost(self) -> tuple[float, int]:
        """Return what the Prefect server has used so far: CPU seconds, and bytes of its database."""
        servers = [p for p in self.processes.members() if SERVER_COMMAND in command_of(p)]
        files = (self.folder / "prefect").glob("prefect.db*")
        return sum(sum(p.cpu_times()[:2]) for p in servers), sum(file.stat().st_size for file in files)

    def start_run(self, deployment: str, parameters: dict[str, Any], timeout_s: float = 120.0) -> str:
        """Schedule a run of `flow/deployment` for now; returns its id. A busy server is asked again, as clients do."""
        key, deadline = secrets.token_hex(8), time.monotonic() + timeout_s
        while True:
            try:
                return self._start_run(deployment, parameters, key)
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise
            except httpx.HTTPStatusError as error:
                if error.response.status_code < 500 or time.monotonic() > deadline:
                    raise
            time.sleep(10 * WAIT_S)

    def _start_run(self, deployment: str, parameters: dict[str, Any], key: str) -> str:
        with httpx.Client(timeout=60) as client:
            found = client.get(f"{self.api_url}/deployments/name/{deployment}").raise_for_status().json()
            url = f"{self.api_url}/deployments/{found['id']}/create_flow_run"
            wanted = {"parameters": parameters, "idempotency_key": key}
            return str(client.post(url, json=wanted).raise_for_status().json()["id"])

    def cancel(self, flow_run_id: str) -> None:
        """Ask for the end of a run, as `prefect flow-run cancel` does."""
        wanted = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
        httpx.post(f"{self.api_url}/flow_runs/{flow_run_id}/set_state", json=wanted, timeout=60).raise_for_status()

    def state_of(self, flow_run_id: str) -> tuple[str, str]:
        """Return type and message of a run's state; an empty type while the server does not answer."""
        try:
            run = httpx.get(f"{self.api_url}/flow_runs/{flow_run_id}", timeout=30).raise_for_status().json()
        except httpx.HTTPError:
            return "", ""
        return run["state"]["type"], run["state"].get("message") or ""

    def set_patience(self, automation: str, within_s: float) -> None:
        """Let an automation, named by a part of its name, wait for so long."""
        found = httpx.post(f"{self.api_url}/automations/filter", json={}, timeout=60).raise_for_status().json()
        (wanted,) = [row for row in found if automation in row["name"]]
        kept = {name: value for name, value in wanted.items() if name not in ("id", "created", "updated")}
        kept["trigger"] |= {"within": within_s}
        httpx.put(f"{self.api_url}/automations/{wanted['id']}", json=kept, timeout=60).raise_for_status()

    def all_runs(self) -> list[tuple[str, str]]:
        """Return name and type of the state of every flow run; a child run is named `RUN-stage-number-attempt`."""
        found: list[tuple[str, str]] = []
        while True:
            question = {"limit": 200, "offset": len(found), "sort": "ID_DESC"}
            page = httpx.post(f"{self.api_url}/flow_runs/filter", json=question, timeout=60).raise_for_status().json()
            found += [(run["name"], run["state"]["type"]) for run in page]
            if len(page) < 200:
                return found

    def wait_for_run(self, flow_run_id: str, timeout_s: float) -> tuple[str, str]:
        """Wait until a run ended; type and message of its last state, whatever it is."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            state = self.state_of(flow_run_id)
            if state[0] in TERMINAL:
                return state
            time.sleep(10 * WAIT_S)
        return self.state_of(flow_run_id)

    def _start_store(self) -> None:
        host, port = self.store_url.removeprefix("http://").split(":")
        self.processes.start("store", [str(BIN / "moto_server"), "-H", host, "-p", port])
        self.processes.wait_until(lambda: answers(self.store_url), "the S3 endpoint", "store")
        arguments = [
            "--upstream",
            self.store_url,
            "--port",
            self.proxy_url.rpartition(":")[2],
            "--seed",
            str(self.seed),
        ]
        self.processes.start("faults", [sys.executable, "-m", "tests.proofs.faults", *arguments])
        self.processes.wait_until(lambda: answers(f"{self.proxy_url}{CONTROL_PATH}"), "the fault proxy", "faults")
        boto3.client("s3", endpoint_url=self.store_url, **_KEYS).create_bucket(Bucket=BUCKET)


_KEYS = {"aws_access_key_id": "proof", "aws_secret_access_key": "proof", "region_name": "us-east-1"}


def s3_environment(url: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": _KEYS["aws_access_key_id"],
        "AWS_SECRET_ACCESS_KEY": _KEYS["aws_secret_access_key"],
        "AWS_DEFAULT_REGION": _KEYS["region_name"],
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def _prefect_environment(home: Path, api_url: str) -> dict[str, str]:
    return {
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_API_URL": api_url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "DO_NOT_TRACK": "1",
    }


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code < 500
    except httpx.HTTPError:
        return False


def command_of(process: psutil.Process) -> str:
    """Return a process's command line; empty for one that is gone."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


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
        [str(BIN / "dgasr"), "transcribe", source, "--lake", lake, "--format", "txt", "--channels", "each"],
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
        "engine": {"model": MODEL, "device": "cpu", "channels": "each"},
        "shard": {"max_recordings": max_recordings},
        "pools": FAST | {"assignment": {"max_shards": max_shards}} | pools,
    }
