"""The demo: the samples through an S3 endpoint and the real flow into a lake, and a report read from the lake.

Everything but the lake ends with it: the endpoint, Prefect's temporary server and its database.
"""

import asyncio
import atexit
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dgasr.errors import ConfigError
from dgasr.samples import SAMPLES

BUCKET = "archive"
MARK = ".made-by-dgasr-demo"
"""File that marks a lake which the next demo may replace."""

AUDIO_SUFFIXES = (".flac", ".mp3", ".ogg", ".m4a", ".webm", ".wav")


def run_demo(lake: Path) -> None:
    """Show the whole way of the data on this machine.

    Args:
        lake: folder for the lake; a lake that an earlier demo made there is replaced.

    Raises:
        ConfigError: something else lies there.
    """
    _clear(lake)
    # Prefect keeps modules alive past the interpreter's end, and DuckDB's bindings then list all their types on
    # standard error. Registered before Prefect is imported, this runs after all that Prefect has to say.
    atexit.register(lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno()))
    with _endpoint() as url, _prefect_home():
        source = _upload()
        sys.stdout.write(f"{source}: {len(_audio_files())} recordings, S3 endpoint {url} (in memory)\n")
        sys.stdout.write("the flow `transcribe` runs in this process, with a temporary Prefect server …\n")
        sys.stdout.flush()
        _run_flow(source, lake)
    from pipelines.demo_report import write_report

    write_report(lake, source, sys.stdout)


def _run_flow(source: str, lake: Path) -> None:
    from dgasr.stages.engine_config import EngineConfig
    from dgasr.stages.plan import ShardConfig
    from pipelines.pools import PoolsConfig
    from pipelines.transcribe import transcribe

    asyncio.run(
        transcribe(source=source, lake=str(lake), engine=EngineConfig(), shard=ShardConfig(), pools=PoolsConfig())
    )


def _clear(lake: Path) -> None:
    """Make way for a new lake, and mark it."""
    if lake.exists() and (not lake.is_dir() or any(lake.iterdir())) and not (lake / MARK).exists():
        raise ConfigError(
            f"{lake}: holds something that the demo did not make. Name another folder: dgasr demo --lake FOLDER."
        )
    shutil.rmtree(lake, ignore_errors=True)
    lake.mkdir(parents=True)
    (lake / MARK).touch()


def _audio_files() -> list[Path]:
    return sorted(path for path in SAMPLES.iterdir() if path.suffix in AUDIO_SUFFIXES)


def _upload() -> str:
    import boto3

    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    for path in _audio_files():
        client.put_object(Bucket=BUCKET, Key=f"recordings/{path.name}", Body=path.read_bytes())
    return f"s3://{BUCKET}/recordings/"


@contextmanager
def _endpoint() -> Iterator[str]:
    """Serve S3 from memory on loopback, and point this process at it."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "demo",
        "AWS_SECRET_ACCESS_KEY": "demo",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }
    try:
        with _environment(settings):
            yield settings["AWS_ENDPOINT_URL"]
    finally:
        server.stop()


@contextmanager
def _prefect_home() -> Iterator[None]:
    """Give Prefect a folder of its own, so that nobody's profile, server or database is touched."""
    with tempfile.TemporaryDirectory(prefix="dgasr-demo-", ignore_cleanup_errors=True) as home:
        settings = {
            "PREFECT_HOME": home,
            "PREFECT_PROFILES_PATH": f"{home}/profiles.toml",
            "PREFECT_LOGGING_LEVEL": "WARNING",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }
        with _environment(settings, unset=("PREFECT_API_URL",)):
            yield


@contextmanager
def _environment(settings: dict[str, str], unset: tuple[str, ...] = ()) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in (*settings, *unset)}
    os.environ.update(settings)
    for name in unset:
        os.environ.pop(name, None)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
