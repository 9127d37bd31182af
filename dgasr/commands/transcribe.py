"""`dgasr transcribe`: recordings into a lake, in this process; `dgasr demo`: the samples through S3 and the flow.

`dgasr backfill`: a selection of an archive, transcribed or only counted, in this process or on the work pools.
"""

import argparse
import importlib
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dgasr.commands.arguments import (
    add_model_arguments,
    add_reading_arguments,
    check_output_folder,
    engine_config,
    finite_float,
    given_uri,
)
from dgasr.errors import ConfigError, Reason, printable

if TYPE_CHECKING:
    from dgasr.lake.transcripts import RecordingTranscript
    from dgasr.stages.engine import EngineConfig
    from dgasr.stages.selection import Selection

REJECTED_EXIT_CODE = 3


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the three commands and their flags."""
    parser = commands.add_parser("transcribe", help="transcribe files, folders or s3:// prefixes into a lake")
    _add_places(parser, num_sources="+")
    forms, shown = ("table", "txt", "srt", "vtt", "ctm", "json"), "how transcripts are printed (default: table)"
    parser.add_argument("--format", choices=forms, default="table", help=shown)
    add_reading_arguments(parser)
    add_model_arguments(parser)
    parser.set_defaults(run=run)
    demo = commands.add_parser("demo", help="show the whole way on this machine: S3, flow, lake, SQL")
    anew = "lake to make anew (default: demo-lake)"
    demo.add_argument("--lake", type=Path, default=Path("demo-lake"), metavar="FOLDER", help=anew)
    demo.set_defaults(run=run_demo)
    _add_backfill(commands)


def _add_places(parser: argparse.ArgumentParser, num_sources: str) -> None:
    add, source = parser.add_argument, "audio file, folder or s3://bucket/prefix"
    add("sources", type=given_uri, nargs=num_sources, metavar="SOURCE", help=source)
    add("--lake", type=given_uri, required=True, metavar="URI", help="folder or s3://bucket/prefix for the results")


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
    from dgasr.stages.embedded import transcribe_backlog
    from dgasr.stages.engine import recipe_of, start_engine
    from dgasr.stages.selection import Selection, find_backlog

    lake_uri = lake_uri_of(options.lake)
    if "://" not in lake_uri:
        check_output_folder("--lake", Path(lake_uri))
    ids = {recording.recording_id: recording.uri for recording in Listing(options.sources, lake_uri=lake_uri)}
    if not ids:
        raise ConfigError(f"{', '.join(options.sources)}: nothing lies there. Give files, a folder or an s3:// prefix.")
    config = engine_config(options)
    recipe, load = recipe_of(config), partial(start_engine, config)
    backlog = find_backlog(Selection(sources=tuple(options.sources)), lake_uri, recipe.recipe_id)
    summary = transcribe_backlog(backlog, lake_uri, recipe, load, ProgressBars())
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
    complaints += [f"{uri}: changed since it was listed. Run again: it is a new version." for uri in changed.values()]


def _add_backfill(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("backfill", help="transcribe a selection of an archive, or say what it would cost")
    _add_places(parser, num_sources="*")
    _add_selection(parser)
    add = parser.add_argument_group("work").add_argument
    add("--dry-run", action="store_true", help="print counts, hours and cost, and touch nothing")
    price = "price of a GPU's hour, for --dry-run"
    add("--gpu-hour-price", type=finite_float, default=0.0, metavar="MONEY", help=price)
    pools = "hand it to the deployment backfill/archive of the Prefect server, with its engine unless flags name one"
    add("--pools", action="store_true", help=pools)
    add_reading_arguments(parser)
    add_model_arguments(parser)
    parser.set_defaults(run=run_backfill)


def _add_selection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("selection", "all given conditions must hold; times without a zone are UTC")
    add = group.add_argument
    add("--uris", metavar="FILE", help="text file or object with the URI of a recording on each line")
    add("--modified-from", type=_time, metavar="TIME", help="only objects modified at TIME or later")
    add("--modified-until", type=_time, metavar="TIME", help="only objects modified before TIME")
    add("--pattern", metavar="GLOB", help="only URIs that match as a whole, such as '*/2024/*.flac'")
    add("--from-recipe", metavar="ID", help="only recordings that the lake holds for this other recipe")
    reasons, again = (
        list(map(str, Reason)),
        "only recordings that the lake holds with this reason; several may be given",
    )
    add("--reason", action="append", default=[], choices=reasons, metavar="REASON", help=again)
    redo = group.add_mutually_exclusive_group().add_argument
    redo("--force", action="store_true", help="transcribe again what the lake holds")
    before = "transcribe again what was transcribed before TIME; goes on with a --force that was stopped"
    redo("--redo-before", type=_time, metavar="TIME", help=before)


def run_backfill(options: argparse.Namespace) -> int:
    """Count, hand over, or transcribe."""
    from dgasr.lake.location import lake_uri_of
    from dgasr.stages.engine import EngineConfig
    from dgasr.stages.selection import list_selected

    lake_uri = lake_uri_of(options.lake)
    selection, engine = _selection(options), engine_config(options)
    if next(iter(list_selected(selection, lake_uri)), None) is None:
        raise ConfigError(f"{', '.join(selection.names)}: nothing lies there. Give files, a folder or an s3:// prefix.")
    if options.dry_run:
        return _forecast(selection, lake_uri, engine, options.gpu_hour_price)
    if selection.redo_before is not None:
        again = selection.redo_before.isoformat()
        sys.stderr.write(f"transcribed before {again}: again. If stopped, go on with --redo-before {again}\n")
    if options.pools:
        # Untouched flags leave the choice to the deployment: nobody wants an archive read by the bundled model unasked.
        chosen = None if engine == EngineConfig() else engine
        sys.stdout.write(importlib.import_module("pipelines.transcribe").submit(selection, lake_uri, chosen))
        return 0
    return _transcribe_selection(selection, lake_uri, engine)


def _selection(options: argparse.Namespace) -> "Selection":
    from dgasr.stages.selection import Selection

    selection = Selection(
        sources=tuple(options.sources), uri_list=options.uris, path_pattern=options.pattern,
        modified_from=options.modified_from, modified_until=options.modified_until, from_recipe=options.from_recipe,
        reasons=tuple(options.reason), redo_before=options.redo_before, force=options.force,
    )  # fmt: skip
    return selection.starting_at(datetime.now(UTC))


def _forecast(selection: "Selection", lake_uri: str, engine: "EngineConfig", gpu_hour_price: float) -> int:
    from dgasr.stages.engine import recipe_of
    from dgasr.stages.selection import find_backlog, forecast

    recipe_id = recipe_of(engine).recipe_id
    found = forecast(find_backlog(selection, lake_uri, recipe_id), lake_uri, recipe_id, gpu_hour_price)
    for name, value in (("recipe", recipe_id), *found.rows()):
        sys.stdout.write(f"{name:28}{value}\n")
    return 0


def _transcribe_selection(selection: "Selection", lake_uri: str, engine: "EngineConfig") -> int:
    from dgasr.commands.output import ProgressBars
    from dgasr.stages.embedded import transcribe_backlog
    from dgasr.stages.engine import recipe_of, start_engine
    from dgasr.stages.selection import find_backlog

    recipe = recipe_of(engine)
    backlog = find_backlog(selection, lake_uri, recipe.recipe_id)
    summary = transcribe_backlog(backlog, lake_uri, recipe, partial(start_engine, engine), ProgressBars())
    sys.stderr.write(
        f"{backlog.num_listed} recordings at the sources: {backlog.num_new} new, {backlog.num_again} again, "
        f"{backlog.num_held} in the lake already\n"
    )
    if summary.num_recordings:
        sys.stderr.write(f"{summary.line()}\n")
    if summary.num_rejected or summary.num_partial:
        sys.stderr.write(f"`dgasr sql rejections --lake {lake_uri}` says what could not be used as a whole, and why\n")
        return REJECTED_EXIT_CODE
    return 0


def _time(text: str) -> datetime:
    """Read a time as people write it, `2024-05-01` or `2024-05-01T12:00:00+02:00`; UTC where no zone is given."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time. Write 2024-05-01 or 2024-05-01T12:00+02:00") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
