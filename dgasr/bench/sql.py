"""Speed and size of the lake: every view of `sql/` over a million segments of invented speech, loose and compacted."""

import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import pyarrow as pa

from dgasr.bench.archive import OTHER_RECIPE_ID, RECIPE_ID, Archive, ArchiveConfig, write_archive
from dgasr.lake.compaction import CompactionConfig, compact
from dgasr.lake.location import open_existing_lake
from dgasr.lake.schema import SHARD_TABLES
from dgasr.lake.snapshot import snapshot
from dgasr.lake.views import connect, view_statements
from dgasr.records import seconds
from dgasr.store import objects

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
"""Questions that only need a small part of a large view."""

REPEATS = 3
"""How often each question is asked; the fastest counts, the first shows what is cold."""

BATCH_ROWS = 10_000
"""Rows of an answer that are held at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """One question."""

    question: str
    is_full_scan: bool
    """Its view says that it reads all of the text or words."""
    num_rows: int
    first_s: float
    """Wall time of the first time it was asked, s."""
    warm_s: float
    """Wall time of the fastest, s."""
    cpu_s: float
    """Processor time of the fastest, all threads together, s."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """A lake in one state."""

    state: str
    num_parts: int
    size_bytes: int
    """Of all recordings and segments."""
    connect_s: float
    peak_memory_bytes: int
    """Of the process that asked all questions."""
    timings: tuple[Timing, ...]


def main() -> None:
    """Print tables, and the same as one line of JSON."""
    with tempfile.TemporaryDirectory(prefix="dgasr-bench-") as folder:
        started = time.perf_counter()
        archive = write_archive(folder, ArchiveConfig())
        print_archive(archive, time.perf_counter() - started)
        loose = measure_apart(folder, "loose")
        started = time.perf_counter()
        compact(objects, folder, CompactionConfig())
        sys.stdout.write(f"compacted in {time.perf_counter() - started:.0f} s\n")
        measurements = (loose, measure_apart(folder, "compacted"))
    for measurement in measurements:
        print_measurement(measurement, seconds(archive.num_samples) / 3600)
    sys.stdout.write(json.dumps([asdict(measurement) for measurement in measurements]) + "\n")


def measure_apart(lake_uri: str, state: str) -> Measurement:
    """Measure in a process of its own, whose memory is that of the questions alone."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (lake_uri, state))


def measure(lake_uri: str, state: str) -> Measurement:
    """Ask every question several times.

    Args:
        lake_uri: a lake that `write_archive` wrote.
        state: what to call it.
    """
    started = time.perf_counter()
    with connect(lake_uri) as connection:
        connect_s = time.perf_counter() - started
        timings = []
        for question, is_full_scan in questions():
            walls, cpus = [], []
            for _ in range(REPEATS):
                wall, cpu = time.perf_counter(), time.process_time()
                reader: pa.RecordBatchReader = connection.sql(f"from {question}").to_arrow_reader(BATCH_ROWS)
                num_rows = sum(batch.num_rows for batch in reader)
                walls.append(time.perf_counter() - wall)
                cpus.append(time.process_time() - cpu)
            timings.append(
                Timing(
                    question=question,
                    is_full_scan=is_full_scan,
                    num_rows=num_rows,
                    first_s=walls[0],
                    warm_s=min(walls),
                    cpu_s=min(cpus),
                )
            )
    found = snapshot(open_existing_lake(lake_uri), SHARD_TABLES)
    parts = [part for table in SHARD_TABLES for part in found.parts[table]]
    return Measurement(
        state=state,
        num_parts=len(parts),
        size_bytes=sum(part.size_bytes for part in parts),
        connect_s=connect_s,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        timings=tuple(timings),
    )


def questions() -> Iterable[tuple[str, bool]]:
    """List what is asked, and whether its view says that it is a full scan."""
    for name, text in sorted(view_statements().items()):
        is_full_scan = "\n-- cost: a full scan" in text
        yield from ((call, is_full_scan) for call in CALLS.get(name, (name,)))
    yield from ((question, False) for question in LOOK_UPS)


def print_archive(archive: Archive, wall_s: float) -> None:
    """Say what was invented."""
    sys.stdout.write(
        f"invented in {wall_s:.0f} s: {archive.num_recordings:,} recordings, {archive.num_segments:,} segments, "
        f"{archive.num_words:,} words, {seconds(archive.num_samples) / 3600:,.0f} h\n"
    )


def print_measurement(measurement: Measurement, audio_h: float) -> None:
    """Print a table of one state of the lake; a star marks views that say they are full scans."""
    sys.stdout.write(
        f"\n{measurement.state}: {measurement.num_parts:,} parts, {measurement.size_bytes / 1e6:,.0f} MB, "
        f"{measurement.size_bytes / audio_h / 1e3:,.0f} kB an hour of audio; opened in {measurement.connect_s:.2f} s; "
        f"at most {measurement.peak_memory_bytes / 1e6:,.0f} MB of memory\n"
        f"{'question':<62}  {'rows':>10}  {'first s':>8}  {'warm s':>7}  {'cpu s':>7}\n"
    )
    for timing in measurement.timings:
        name = timing.question + (" *" if timing.is_full_scan else "")
        sys.stdout.write(
            f"{name:<62}  {timing.num_rows:>10,}  {timing.first_s:>8.2f}  {timing.warm_s:>7.2f}  {timing.cpu_s:>7.2f}\n"
        )
