"""Speed and size of the lake: every view of `sql/` over a million segments of invented speech, loose and compacted."""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from benchmarks.archive import OTHER_RECIPE_ID, RECIPE_ID, ArchiveConfig, write_archive
from benchmarks.sql_report import Measurement, Report, Timing
from dgasr.commands.arguments import check_output_file, positive_int
from dgasr.lake.location import open_existing_lake
from dgasr.lake.upkeep import compact
from dgasr.lake.views import connect, files_of_tables, has_rows, view_statements
from dgasr.records import seconds

CALLS = {
    "search": ("search('harbour pilot')", "search('the and of harbour')"),
    "phrase": ("phrase('harbour pilot ahoy')", "phrase('the and')"),
    "transcript_at": ("transcript_at('s3://archive/desk1/2026/01/02/00001.flac', 60)",),
    "speech_per_prefix": ("speech_per_prefix(2)",),
    "vocabulary_drift": ("vocabulary_drift(date '2026-01-15')",),
    "word_differences": (f"word_differences('{OTHER_RECIPE_ID}', '{RECIPE_ID}')",),
    "compare_recipes": (f"compare_recipes('{OTHER_RECIPE_ID}', '{RECIPE_ID}')",),
}
"""Calls of the macros: rare words and frequent ones, one recording, one day that two recipes transcribed."""

LOOK_UPS = (
    "words where uri = 's3://archive/desk1/2026/01/02/00001.flac'",
    "segments where \"date\" = '2026-01-02'",
)
"""TextsToScore that only need a small part of a large view."""

COMPACTED = "compacted"
"""State of the lake that budgets are for."""

OF_A_LOOSE_LAKE = ("search('harbour pilot')", "coverage", "speech_per_day", "suspicious_segments", *LOOK_UPS)
"""TextsToScore that show what small files cost; all of them would take minutes and show nothing else."""

REPEATS = 3
"""How often each question is asked; the fastest counts, the first shows what is cold."""

BATCH_ROWS = 10_000
"""Rows of an answer that are held at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What is asked."""

    text: str
    """What follows `from`."""
    is_full_scan: bool
    """Its view says that it reads all of the text or words."""


def main(arguments: Sequence[str]) -> None:
    """Measure an archive of the size that is asked for."""
    parser = argparse.ArgumentParser(prog="benchmarks sql", description=__doc__)
    parser.add_argument(
        "--days", type=positive_int, default=56, metavar="N", help="of archive, 36 h each (default: 56, 1 M segments)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    options = parser.parse_args(arguments)
    check_output_file("--json", options.json)
    report(ArchiveConfig(num_days=options.days), options.json)


def report(config: ArchiveConfig, json_file: Path | None = None) -> None:
    """Print what was measured as it comes, and write all of it as JSON where a file is given.

    Args:
        config: how large a lake to invent.
        json_file: where the figures go.
    """
    with tempfile.TemporaryDirectory(prefix="dgasr-bench-") as lake_uri:
        started = time.perf_counter()
        archive = write_archive(lake_uri, config)
        invented_s = time.perf_counter() - started
        sys.stdout.write(
            f"invented in {invented_s:.0f} s: {archive.num_recordings:,} recordings, "
            f"{archive.num_segments:,} segments, {archive.num_words:,} words, "
            f"{seconds(archive.num_samples) / 3600:,.0f} h\n"
        )
        loose = measure_apart(lake_uri, "loose", OF_A_LOOSE_LAKE)
        started = time.perf_counter()
        done = compact(lake_uri)
        compact_s = time.perf_counter() - started
        sys.stdout.write(f"\ncompacted in {compact_s:.0f} s: {done.line()}\n")
        compacted = measure_apart(lake_uri, COMPACTED, [question.text for question in questions()])
    found = Report(archive=archive, invented_s=invented_s, compact_s=compact_s, loose=loose, compacted=compacted)
    sys.stdout.write(found.summary())
    if json_file:
        json_file.write_text(found.to_json(), encoding="utf-8")


def measure_apart(lake_uri: str, state: str, wanted: Iterable[str]) -> Measurement:
    """Measure in a process of its own, whose memory is that of the questions alone."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (lake_uri, state, list(wanted)))


def measure(lake_uri: str, state: str, wanted: list[str]) -> Measurement:
    """Ask questions several times each, and print each answer's cost when it is known.

    Args:
        lake_uri: a lake that `write_archive` wrote.
        state: what to call it.
        wanted: texts of the questions to ask, of `questions`.
    """
    files = files_of_tables(open_existing_lake(lake_uri))["transcripts"]
    started = time.perf_counter()
    with connect(lake_uri) as connection:
        connect_s = time.perf_counter() - started
        sys.stdout.write(f"\n{state}: {len(files):,} files, opened in {connect_s:.2f} s\n{Timing.HEADER}\n")
        timings = []
        for question in questions():
            if question.text not in wanted:
                continue
            walls, cpus = [], []
            for _ in range(REPEATS):
                wall, cpu = time.perf_counter(), time.process_time()
                reader: pa.RecordBatchReader = connection.sql(f"from {question.text}").to_arrow_reader(BATCH_ROWS)
                num_rows = sum(batch.num_rows for batch in reader)
                walls.append(time.perf_counter() - wall)
                cpus.append(time.process_time() - cpu)
            timing = Timing(
                question=question.text,
                is_full_scan=question.is_full_scan,
                num_rows=num_rows,
                first_s=walls[0],
                warm_s=min(walls),
                cpu_s=min(cpus),
            )
            sys.stdout.write(timing.line() + (f"  {timing.verdict()}" if state == COMPACTED else "") + "\n")
            sys.stdout.flush()
            timings.append(timing)
    return Measurement(
        state=state,
        num_files=len(files),
        size_bytes=sum(file.size_bytes for file in files),
        connect_s=connect_s,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        timings=tuple(timings),
    )


def questions() -> Iterable[Question]:
    """List what is asked: every view and macro, and what needs a small part of a large one."""
    for name, text in sorted(view_statements().items()):
        if not has_rows(text):
            continue
        is_full_scan = "\n-- cost: a full scan" in text
        yield from (Question(text=call, is_full_scan=is_full_scan) for call in CALLS.get(name, (name,)))
    yield from (Question(text=text, is_full_scan=False) for text in LOOK_UPS)
