"""The demo: recordings of people through an S3 endpoint and the real flow into a lake, and what the lake says of them.

Everything but the lake ends with it: the endpoint, Prefect's temporary server and its database.
"""

import asyncio
import atexit
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal, TextIO
from unittest.mock import patch

from dgasr.errors import ConfigError
from dgasr.evaluation.normalise import normalise
from dgasr.evaluation.scores import EditCounts, count_edits
from dgasr.lake.views import ask, connect
from dgasr.samples import PEOPLE
from pipelines import EVERYWHERE

BUCKET = "archive"
MARK = ".made-by-dgasr-demo"
"""File that marks a lake which the next demo may replace."""

CALL = "call_on_two_channels.flac"
"""Recording in which two people speak, each on a channel."""

TIMED_RECORDINGS = 2
"""Recordings whose words are printed with their times."""

TEXT_WIDTH = 98
"""Characters of a text before it is cut."""


def run_demo(lake: Path) -> None:
    """Show the whole way of the data on this machine; a lake that an earlier demo made in the folder is replaced."""
    if lake.exists() and (not lake.is_dir() or any(lake.iterdir())) and not (lake / MARK).exists():
        raise ConfigError(
            f"{lake}: holds something that the demo did not make. Name another folder: dgasr demo --lake FOLDER."
        )
    shutil.rmtree(lake, ignore_errors=True)
    lake.mkdir(parents=True)
    (lake / MARK).touch()
    # Prefect keeps modules alive past the interpreter's end, and DuckDB's bindings then list all their types on
    # standard error. Registered before Prefect is imported, this runs after all that Prefect has to say.
    atexit.register(lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno()))
    with _surroundings() as url:
        source, calls, count = _upload()
        sys.stdout.write(f"{source}: {count} recordings, S3 endpoint {url} (in memory)\n")
        sys.stdout.write(f"{calls}: a call of two people, each on a channel\n")
        sys.stdout.write("the flow `transcribe` runs in this process, with a temporary Prefect server …\n")
        sys.stdout.flush()
        _run_flow(calls, lake, channels="each")
        _run_flow(source, lake, channels="mix")
    write_report(lake, source, calls, sys.stdout)


@contextmanager
def _surroundings() -> Iterator[str]:
    """Serve S3 from memory on loopback, and give Prefect a folder of its own: nobody's server or profile is touched."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        with tempfile.TemporaryDirectory(prefix="dgasr-demo-", ignore_cleanup_errors=True) as home:
            settings = {
                "AWS_ENDPOINT_URL": f"http://{host}:{port}",
                "AWS_ACCESS_KEY_ID": "demo",
                "AWS_SECRET_ACCESS_KEY": "demo",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_EC2_METADATA_DISABLED": "true",
                "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
                "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
                "PREFECT_HOME": home,
                "PREFECT_PROFILES_PATH": f"{home}/profiles.toml",
                "PREFECT_LOGGING_LEVEL": "WARNING",
            } | EVERYWHERE
            with patch.dict(os.environ, settings):
                os.environ.pop("PREFECT_API_URL", None)
                yield settings["AWS_ENDPOINT_URL"]
    finally:
        server.stop()


def _upload() -> tuple[str, str, int]:
    """Put the samples and the call into S3; returns the prefixes of both, and how many samples they are."""
    import boto3

    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    names = sorted(row["audio_filepath"] for row in read_people())
    for name in names:
        folder = "calls" if name == CALL else "recordings"
        client.put_object(Bucket=BUCKET, Key=f"{folder}/{name}", Body=(PEOPLE.parent / name).read_bytes())
    return f"s3://{BUCKET}/recordings/", f"s3://{BUCKET}/calls/", len(names) - 1


def read_people() -> list[dict[str, Any]]:
    """Read what is said in the demo's recordings, and what the lake should make of them."""
    return [json.loads(line) for line in PEOPLE.read_text(encoding="utf-8").splitlines()]


def _run_flow(source: str, lake: Path, channels: Literal["mix", "each"]) -> None:
    from dgasr.stages.engine import EngineConfig
    from dgasr.stages.plan import ShardConfig
    from pipelines.request import PoolsConfig
    from pipelines.transcribe import transcribe

    engine = EngineConfig(model="base", channels=channels)
    asyncio.run(transcribe(source=source, lake=str(lake), engine=engine, shard=ShardConfig(), pools=PoolsConfig()))


def write_report(lake: Path, source: str, calls: str, out: TextIO) -> None:
    """Print what the demo's lake says of the samples and of the call, whose URIs begin with `source` and `calls`."""
    with connect(str(lake)) as connection:
        transcripts = ask(connection, "from latest_transcripts")
        heard = {row["uri"].removeprefix(source): row for row in transcripts if row["uri"].startswith(source)}
        people = {row["audio_filepath"]: row for row in read_people()}
        words = ask(connection, "from words order by uri, segment_index, word_index")
        cut = partial(shorten, width=TEXT_WIDTH, placeholder=" …")
        out.write("\nwhat was said, and what was heard\n")
        for name, row in heard.items():
            flagged = f", {row['num_flagged']} flagged" if row["num_flagged"] else ""
            out.write(f"  {name}  ({row['status']}, {row['decoded_s']:.1f} s{flagged})\n")
            out.write(f"    said   {cut(people[name]['text']) or '(nothing)'}\n")
            out.write(f"    heard  {cut(row['text']) or '(nothing)'}\n")
        out.write(f"\ntwo people on the two channels of {CALL} (channels: each)\n")
        channels = [row for row in transcripts if row["uri"].startswith(calls)]
        for said, row in zip(people[CALL]["channels"], channels, strict=True):
            out.write(f"  channel {row['channel']}  said   {said}\n{'':13}heard  {row['text']}\n")
        out.write("\nwords with times (s) and confidence\n")
        for name in [name for name, row in heard.items() if row["text"]][:TIMED_RECORDINGS]:
            out.write(f"  {name}\n")
            for word in (row for row in words if row["uri"] == source + name):
                out.write("    {start_s:6.2f} to {end_s:6.2f}  {confidence:.2f}  {word}\n".format(**word))
        whole = [name for name, row in people.items() if row["expected"] == "ok" and name in heard]
        edits = sum(
            (count_edits(_plain(people[name]["text"]), _plain(heard[name]["text"])) for name in whole), EditCounts()
        )
        out.write(
            f"\nWER {edits.rate:.1%} ({edits.substitutions} substituted, {edits.deletions} deleted, "
            f"{edits.insertions} inserted of {edits.reference_words} words; case and punctuation do not count)\n"
        )
        run = ask(connection, "from throughput")[0]
        sums = "sum(columns(['decoded_s', 'speech_s', 'dropped_s']))"
        (total,) = ask(connection, f"select {sums} from coverage where starts_with(uri, '{source}')")
        decoded_s, speech_s, dropped_s = total.values()
        out.write(
            f"RTFx {run['rtfx']:.1f}: {decoded_s:.1f} s of audio in {run['wall_s']:.1f} s on {run['device']}\n"
            f"coverage: {decoded_s:.1f} s decoded = {speech_s:.1f} s speech "
            f"+ {dropped_s:.1f} s silence, to the sample\n"
        )
        out.write("\nbroken on purpose\n")
        for row in ask(connection, "from rejections"):
            out.write(f"  {row['uri'].removeprefix(source)}: {row['status']}, {row['reason']}\n    {row['message']}\n")
    out.write(f"\nthe lake stays in {lake}; go on with:\n")
    call = "select channel, text from latest_transcripts where uri like '%/calls/%'"
    search = "select * from search('the sheep')"
    for query in ("latest_transcripts", call, "coverage", search, "select * from words"):
        out.write(f'  dgasr sql "{query}" --lake {lake}\n')


def _plain(text: str) -> tuple[str, ...]:
    return normalise(text, "en", "basic")
