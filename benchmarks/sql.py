"""Speed and size of the lake: every view of `sql/` over a million segments of invented speech, compacted.

Budgets of a compacted lake: a warm search within 1 s whatever its words are, any other question within 2 s but those
whose view says that it is a full scan, and 2 GB of memory for the process that asks all of them.
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa

from benchmarks import print_table
from benchmarks.archive import OTHER_RECIPE_ID, RECIPE_ID, ArchiveConfig, write_archive
from dgasr.commands.arguments import positive_int
from dgasr.lake.location import open_existing_lake
from dgasr.lake.upkeep import compact
from dgasr.lake.views import connect, files_of_tables, view_statements
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
"""Questions that only need a small part of a large view."""

REPEATS = 3
"""How often each question is asked; the fastest counts, the first shows what is cold."""

BATCH_ROWS = 10_000
"""Rows of an answer that are held at once."""

SEARCH_BUDGET_S, QUESTION_BUDGET_S, MEMORY_BUDGET_BYTES = 1.0, 2.0, 2 * 10**9


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What is asked, and what it cost."""

    text: str
    """What follows `from`."""
    is_full_scan: bool
    """Its view says that it reads all of the text or words."""
    num_rows: int = 0
    first_s: float = 0.0
    """Wall time of the first time it was asked, s."""
    warm_s: float = 0.0
    """Wall time of the fastest, s."""
    cpu_s: float = 0.0
    """Processor time of the fastest, all threads together, s."""

    @property
    def budget_s(self) -> float | None:
        """What it may take warm in a compacted lake, s; `None` for a full scan."""
        if self.text.startswith("search("):
            return SEARCH_BUDGET_S
        return None if self.is_full_scan else QUESTION_BUDGET_S

    def verdict(self) -> str:
        """Say what it may take, and whether it took longer."""
        if self.budget_s is None:
            return "a full scan"
        return f"within {self.budget_s:g} s" if self.warm_s <= self.budget_s else f"MISSED {self.budget_s:g} s"


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """What a lake takes."""

    num_files: int
    size_bytes: int
    """Of all recordings and segments."""
    connect_s: float
    peak_memory_bytes: int
    """Of the process that asked all questions."""
    questions: tuple[Question, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the size."""
    parser.add_argument(
        "--days", type=positive_int, default=56, metavar="N", help="of archive, 36 h each (default: 56, 1 M segments)"
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure an archive of the size that is asked for."""
    return measure_archive(ArchiveConfig(num_days=options.days))


def measure_archive(config: ArchiveConfig) -> dict[str, Any]:
    """Print what was measured as it comes; times in s, memory and sizes in bytes."""
    with tempfile.TemporaryDirectory(prefix="dgasr-bench-") as lake_uri:
        started = time.perf_counter()
        archive = write_archive(lake_uri, config)
        invented_s = time.perf_counter() - started
        audio_h = seconds(archive.num_samples) / 3600
        sys.stdout.write(f"invented in {invented_s:.0f} s: {asdict(archive)}, {audio_h:,.0f} h\n")
        started = time.perf_counter()
        done = compact(lake_uri)
        compact_s = time.perf_counter() - started
        sys.stdout.write(f"compacted in {compact_s:.0f} s: {done.line()}\n")
        found = measure_apart(lake_uri)
    sys.stdout.write(
        f"{found.num_files:,} files, {found.size_bytes / 1e6:,.0f} MB, {found.size_bytes / audio_h / 1e3:,.0f} kB an "
        f"hour of audio; opened in {found.connect_s:.2f} s; at most {found.peak_memory_bytes / 1e6:,.0f} MB of memory\n"
    )
    missed = [question.text for question in found.questions if question.verdict().startswith("MISSED")]
    if found.peak_memory_bytes >= MEMORY_BUDGET_BYTES:
        missed.append(f"memory under {MEMORY_BUDGET_BYTES / 1e9:g} GB")
    times = {"audio_h": audio_h, "invented_s": invented_s, "compact_s": compact_s}
    return {"archive": asdict(archive), **times, **asdict(found), "missed": missed}


def measure_apart(lake_uri: str) -> Measurement:
    """Measure in a process of its own, whose memory is that of the questions alone."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (lake_uri,))


def measure(lake_uri: str) -> Measurement:
    """Ask a lake that `write_archive` wrote each question several times, and print what it cost."""
    files = files_of_tables(open_existing_lake(lake_uri))["transcripts"]
    started = time.perf_counter()
    with connect(lake_uri) as connection:
        connect_s, asked = time.perf_counter() - started, []
        for question in questions():
            walls, cpus = [], []
            for _ in range(REPEATS):
                wall, cpu = time.perf_counter(), time.process_time()
                reader: pa.RecordBatchReader = connection.sql(f"from {question.text}").to_arrow_reader(BATCH_ROWS)
                num_rows = sum(batch.num_rows for batch in reader)
                walls.append(time.perf_counter() - wall)
                cpus.append(time.process_time() - cpu)
            asked.append(replace(question, num_rows=num_rows, first_s=walls[0], warm_s=min(walls), cpu_s=min(cpus)))
    rows = [(own.text, own.num_rows, own.first_s, own.warm_s, own.cpu_s, own.verdict()) for own in asked]
    print_table(("question", "rows", "first s", "warm s", "cpu s", ""), rows)
    return Measurement(
        num_files=len(files), size_bytes=sum(file.size_bytes for file in files), connect_s=connect_s,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, questions=tuple(asked),
    )  # fmt: skip


def has_rows(statement: str) -> bool:
    """Say whether what a statement of `sql/` creates stands after `from`: a view or a macro of rows, no function."""
    return "create or replace view" in statement or "as table" in statement


def questions() -> Iterable[Question]:
    """List what is asked: every view and macro, and what needs a small part of a large one."""
    for name, text in sorted(view_statements().items()):
        if not has_rows(text):
            continue
        is_full_scan = "\n-- cost: a full scan" in text
        yield from (Question(text=call, is_full_scan=is_full_scan) for call in CALLS.get(name, (name,)))
    yield from (Question(text=text, is_full_scan=False) for text in LOOK_UPS)
