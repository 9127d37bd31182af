"""The demo: the samples through an S3 endpoint and the real flow into a lake, and what the lake says of them.

Everything but the lake ends with it: the endpoint, Prefect's temporary server and its database.
"""

import asyncio
import atexit
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import duckdb

from dgasr.errors import ConfigError
from dgasr.evaluation.timing import TimingErrors, timing_errors
from dgasr.evaluation.wer import EditCounts, count_edits
from dgasr.lake.views import connect
from dgasr.records import Word
from dgasr.samples import MANIFEST, SAMPLES
from dgasr.training.manifests import Utterance, num_samples, read_manifest

BUCKET = "archive"
MARK = ".made-by-dgasr-demo"
"""File that marks a lake which the next demo may replace."""

AUDIO_SUFFIXES = (".flac", ".mp3", ".ogg", ".m4a", ".webm", ".wav")


def run_demo(lake: Path) -> None:
    """Show the whole way of the data on this machine; a lake that an earlier demo made in the folder is replaced."""
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
    from pipelines.demo import write_report

    write_report(lake, source, sys.stdout)


def _run_flow(source: str, lake: Path) -> None:
    from dgasr.stages.engine import EngineConfig
    from dgasr.stages.plan import ShardConfig
    from pipelines.request import PoolsConfig
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


TIMED_RECORDINGS = 2
"""Recordings whose words are printed with their times."""

TEXT_WIDTH = 96
"""Characters of a text before it is cut."""


def write_report(lake: Path, source: str, out: TextIO) -> None:
    """Print what the demo's lake says of the samples, whose URIs begin with `source`."""
    with connect(str(lake)) as connection:
        heard = {row["uri"].removeprefix(source): row for row in _ask(connection, "select * from latest_transcripts")}
        words = _words(connection, source)
        said = {Path(utterance.audio_filepath).name: utterance for utterance in read_manifest(MANIFEST)}
        _write_texts(said, heard, out)
        _write_times(said, heard, words, out)
        _write_scores(said, heard, words, out)
        _write_coverage(connection, out)
        _write_broken(connection, source, out)
    out.write(f"\nthe lake stays in {lake}; go on with:\n")
    for query in ("latest_transcripts", "coverage", "select * from search('three one four')", "select * from words"):
        out.write(f'  dgasr sql "{query}" --lake {lake}\n')


def _write_texts(said: dict[str, Utterance], heard: dict[str, dict[str, Any]], out: TextIO) -> None:
    out.write("\nwhat was said, and what was heard\n")
    for name, row in heard.items():
        flagged = f", {row['num_flagged']} flagged" if row["num_flagged"] else ""
        out.write(f"  {name}  ({row['status']}, {row['decoded_s']:.1f} s{flagged})\n")
        out.write(f"    said   {_cut(said[name].text) or '(nothing)'}\n")
        out.write(f"    heard  {_cut(row['text']) or '(nothing)'}\n")


def _write_times(
    said: dict[str, Utterance], heard: dict[str, dict[str, Any]], words: dict[str, list[Any]], out: TextIO
) -> None:
    out.write("\nwords with times (s) and confidence\n")
    with_text = [name for name, row in heard.items() if row["text"]]
    for name in with_text[:TIMED_RECORDINGS]:
        out.write(f"  {name}\n")
        for word in words[name]:
            out.write(f"    {word['start_s']:6.2f} to {word['end_s']:6.2f}  {word['confidence']:.2f}  {word['word']}\n")


def _write_scores(
    said: dict[str, Utterance], heard: dict[str, dict[str, Any]], words: dict[str, list[Any]], out: TextIO
) -> None:
    edits = sum(
        (count_edits(said[name].text.split(), row["text"].split()) for name, row in heard.items()), EditCounts()
    )
    timing = TimingErrors.total(
        timing_errors(said[name].words or (), [_record(word) for word in words.get(name, [])]) for name in heard
    ).summary()
    out.write(
        f"\nWER {edits.rate:.1%} ({edits.substitutions} substituted, {edits.deletions} deleted, "
        f"{edits.insertions} inserted of {edits.reference_words} words)\n"
    )
    if timing["matched_words"]:
        out.write(
            f"word times: median error {timing['start_median_ms']:.0f} ms at starts, "
            f"{timing['end_median_ms']:.0f} ms at ends, over {timing['matched_words']} words\n"
        )


def _write_coverage(connection: duckdb.DuckDBPyConnection, out: TextIO) -> None:
    run = _ask(connection, "select * from throughput")[0]
    sums = ", ".join(f"sum({column}) as {column}" for column in ("decoded_s", "speech_s", "dropped_s"))
    total = _ask(connection, f"select {sums} from coverage")[0]
    out.write(
        f"RTFx {run['rtfx']:.1f}: {total['decoded_s']:.1f} s of audio in {run['wall_s']:.1f} s on {run['device']}\n"
        f"coverage: {total['decoded_s']:.1f} s decoded = {total['speech_s']:.1f} s speech "
        f"+ {total['dropped_s']:.1f} s silence, to the sample\n"
    )


def _write_broken(connection: duckdb.DuckDBPyConnection, source: str, out: TextIO) -> None:
    out.write("\nbroken on purpose\n")
    for row in _ask(connection, "select * from rejections"):
        out.write(f"  {row['uri'].removeprefix(source)}: {row['status']}, {row['reason']}\n    {row['message']}\n")


def _words(connection: duckdb.DuckDBPyConnection, source: str) -> dict[str, list[dict[str, Any]]]:
    """Read all words by recording, in order."""
    words: dict[str, list[dict[str, Any]]] = {}
    for row in _ask(connection, "select * from words order by uri, segment_index, word_index"):
        words.setdefault(row["uri"].removeprefix(source), []).append(row)
    return words


def _record(row: dict[str, Any]) -> Word:
    return Word(
        word=row["word"],
        start_sample=num_samples(row["start_s"]),
        end_sample=num_samples(row["end_s"]),
        confidence=row["confidence"],
    )


def _ask(connection: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    result = connection.execute(query)
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_WIDTH else re.sub(r"\s+\S*$", " …", text[:TEXT_WIDTH])
