"""`dgasr transcribe`: recordings into a lake, in this process; `dgasr demo`: the samples through S3 and the flow."""

import argparse
import importlib
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dgasr.commands.arguments import add_model_arguments, add_reading_arguments, engine_config, given_uri
from dgasr.errors import ConfigError, printable

if TYPE_CHECKING:
    from dgasr.lake.transcripts import RecordingTranscript

REJECTED_EXIT_CODE = 3


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its flags."""
    parser = commands.add_parser("transcribe", help="transcribe files, folders or s3:// prefixes into a lake")
    parser.add_argument(
        "sources", type=given_uri, nargs="+", metavar="SOURCE", help="audio file, folder or s3://bucket/prefix"
    )
    parser.add_argument(
        "--lake", type=given_uri, required=True, metavar="URI", help="folder or s3://bucket/prefix for the results"
    )
    parser.add_argument(
        "--format",
        choices=("table", "txt", "srt", "vtt", "ctm", "json"),
        default="table",
        help="how transcripts are printed (default: table)",
    )
    add_reading_arguments(parser)
    add_model_arguments(parser)
    parser.set_defaults(run=run)
    demo = commands.add_parser("demo", help="show the whole way on this machine: S3, flow, lake, SQL")
    demo.add_argument(
        "--lake", type=Path, default=Path("demo-lake"), metavar="FOLDER", help="lake to make anew (default: demo-lake)"
    )
    demo.set_defaults(run=run_demo)


def run_demo(options: argparse.Namespace) -> int:
    """Show the samples' way. The flow is found at run time: the library does not depend on `pipelines`."""
    importlib.import_module("pipelines.demo").run_demo(options.lake)
    return 0


def run(options: argparse.Namespace) -> int:
    """Transcribe what the lake does not hold, print all that was asked for, and name what could not be used."""
    from dgasr.commands.output import ProgressBars, write_transcripts
    from dgasr.lake.location import lake_uri_of
    from dgasr.lake.transcripts import read_transcripts
    from dgasr.stages.discover import Listing
    from dgasr.stages.embedded import transcribe_sources
    from dgasr.stages.engine import recipe_of, start_engine

    lake_uri = lake_uri_of(options.lake)
    _check_lake(lake_uri)
    ids = {recording.recording_id: recording.uri for recording in Listing(options.sources, lake_uri=lake_uri)}
    if not ids:
        raise ConfigError(f"{', '.join(options.sources)}: nothing lies there. Give files, a folder or an s3:// prefix.")
    config = engine_config(options)
    load = partial(start_engine, config)
    summary = transcribe_sources(options.sources, lake_uri, recipe_of(config), load, ProgressBars())
    sys.stderr.write(summary.line() + "\n")
    complaints: list[str] = []
    transcripts = _noting(read_transcripts(lake_uri, summary.recipe_id, list(ids)), ids, complaints)
    write_transcripts(transcripts, options.format, len(ids) > 1, sys.stdout)
    sys.stdout.flush()
    sys.stderr.writelines(f"{printable(complaint)}\n" for complaint in complaints)
    return REJECTED_EXIT_CODE if complaints else 0


def _noting(
    transcripts: "Iterator[RecordingTranscript]", ids: dict[str, str], complaints: list[str]
) -> "Iterator[RecordingTranscript]":
    """Pass transcripts on, and note why a recording could not be used as a whole, or is not there."""
    changed = dict(ids)
    for transcript in transcripts:
        del changed[transcript.recording["recording_id"]]
        row = transcript.recording
        if row["status"] != "ok":
            complaints.append(f"{row['status']} ({row['reason']}): {row['message']}")
        yield transcript
    complaints.extend(
        f"{uri}: changed since it was listed. Run again: it is a new version." for uri in changed.values()
    )


def _check_lake(lake_uri: str) -> None:
    """Refuse a lake that cannot be written to, before any work."""
    from dgasr.store.objects import list_uris

    if "://" in lake_uri:
        next(iter(list_uris(f"{lake_uri}/commits/")), None)
        return
    folder = Path(lake_uri)
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"{lake_uri}: no lake can be written there ({existing} is no folder, or is read-only).")
