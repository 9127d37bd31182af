"""A lake in, everything that is wrong with it out: its files first, then the rows of those that are sound."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.parquet

from dgasr.errors import IntegrityError
from dgasr.lake.location import Lake, open_existing_lake
from dgasr.lake.rules import REDO, Finding, broken_rules
from dgasr.lake.schema import TABLES, VIEWS
from dgasr.lake.table import READ_THREADS, File, read_file, unreadable
from dgasr.lake.upkeep import KEPT, unused_files
from dgasr.lake.views import files_of_tables, open_tables, row_views

RESTORE = (
    "Restore it from a copy or an older version of the object; without one, `dgasr lake forget PARTITION` takes this "
    "partition out, and the next `dgasr transcribe` fills it anew"
)
"""What to do about rows that are gone or wrong in their file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """What was found, faults first, and how much was looked at."""

    findings: tuple[Finding, ...]
    num_files: int
    num_recordings: int
    num_segments: int
    is_deep: bool
    """All columns were read, and identities checked."""

    @property
    def num_faults(self) -> int:
        """Findings that are faults."""
        return sum(finding.severity == "fault" for finding in self.findings)

    def line(self) -> str:
        """Say it in one line."""
        looked = f"{self.num_files} files, {self.num_recordings} recordings, {self.num_segments} segments"
        depth = "all columns read" if self.is_deep else "not all columns read, add --deep"
        if not self.num_faults:
            return f"the lake is sound: {looked} checked ({depth})"
        kinds = Counter(finding.kind for finding in self.findings if finding.severity == "fault")
        return f"{self.num_faults} faults ({', '.join(sorted(kinds))}) in {looked}"


def check_lake(lake_uri: str, *, is_deep: bool) -> Inspection:
    """Look for everything that must not be in a lake. Changes nothing; runs may go on meanwhile.

    `is_deep` reads all columns of all files, and makes each recording's id again; otherwise footers, and the columns
    that rules are about. ConfigError where no lake lies there; IntegrityError where the log of a table cannot be read,
    so that nothing else can be judged; TransientError where the store does not answer.
    """
    lake = open_existing_lake(lake_uri)
    tables = files_of_tables(lake)
    sizes = {key: info.size for name in TABLES for key, info in lake.list_files(name).items()}
    files = [file for found in tables.values() for file in found]
    with ThreadPoolExecutor(READ_THREADS) as pool:
        wrong = list(pool.map(lambda file: _check_file(lake, file, sizes, is_deep), files))
    findings = [finding for finding in wrong if finding is not None]
    # What a lost file leaves without its other half would be reported as well, row by row.
    damaged = {partition_of(file) for file, finding in zip(files, wrong, strict=True) if finding is not None}
    sound = {name: [file for file in found if partition_of(file) not in damaged] for name, found in tables.items()}
    for key in unused_files(lake, KEPT.total_seconds()):
        what, advice = "no reader needs it any more", "Nothing need be done: `dgasr lake vacuum --yes` removes it"
        findings.append(Finding(severity="note", kind="unused", where=f"{lake.uri}/{key}", what=what, advice=advice))
    counts, found = _check_rows(lake, sound, is_deep)
    return Inspection(
        findings=tuple(sorted([*findings, *found], key=lambda finding: (finding.severity, finding.kind))),
        num_files=len(files),
        num_recordings=counts[0],
        num_segments=counts[1],
        is_deep=is_deep,
    )


def partition_of(file: File) -> str:
    """Name the partition of a file as `dgasr lake forget` takes it: `recipe_id=…/date=…`, or `runs/date=…`."""
    folder = "/".join(f"{name}={value}" for name, value in file.partition.items() if name != "row_kind")
    return folder if file.table == "transcripts" else f"{file.table}/{folder}"


def _check_file(lake: Lake, file: File, sizes: dict[str, int], is_deep: bool) -> Finding | None:
    """Return what is wrong with a file."""
    if file.key not in sizes:
        return _fault("file_missing", lake, file, "is not there")
    if sizes[file.key] != file.size_bytes:
        return _fault("file_size", lake, file, f"has {sizes[file.key]} bytes, and {file.size_bytes} were committed")
    try:
        try:
            with pyarrow.parquet.ParquetFile(lake.path(file.key), filesystem=lake.filesystem) as source:
                names, num_rows = source.schema_arrow.names, source.metadata.num_rows
        except (pa.ArrowException, OSError) as error:
            raise unreadable(lake, file.key, error) from error
        if is_deep:
            read_file(lake, file, [name for name in TABLES[file.table].names if name in names])
    except IntegrityError as error:
        return _fault("file_unreadable", lake, file, str(error).partition(": ")[2].partition(". ")[0])
    if num_rows != file.num_rows:
        return _fault("file_rows", lake, file, f"has {num_rows} rows, and {file.num_rows} were committed")
    return None


def _check_rows(lake: Lake, tables: dict[str, list[File]], is_deep: bool) -> tuple[list[int], list[Finding]]:
    """Count recordings and segments, and find what breaks a rule."""
    connection, _ = open_tables(lake, tables, row_views())
    with connection:
        try:
            counts = [int(connection.execute(f"select count(*) from {view}").fetchall()[0][0]) for view in VIEWS]
            findings = list(broken_rules(connection, lake.uri))
            return counts, findings + (list(_wrong_identities(connection)) if is_deep else [])
        except duckdb.Error as error:
            advice = RESTORE if is_deep else "`dgasr lake check --deep` says which file it is, and what to do"
            what = f"rows cannot be read ({str(error).strip()})"
            return [0, 0], [Finding(severity="fault", kind="rows_unreadable", where=lake.uri, what=what, advice=advice)]


def _wrong_identities(connection: duckdb.DuckDBPyConnection) -> Iterator[Finding]:
    """Yield recordings whose id is not that of their object."""
    cursor = connection.execute('select recipe_id, "date"::varchar, recording_id, uri, etag from recordings')
    while rows := cursor.fetchmany(10_000):
        for recipe_id, date, recording_id, uri, etag in rows:
            key = f"{uri}\0{etag}".encode("utf-8", "surrogateescape")
            if hashlib.blake2b(key, digest_size=16).hexdigest() != recording_id:
                what = f"has recording_id {recording_id}, which is not that of its uri and etag"
                advice = REDO.replace("PARTITION", f"recipe_id={recipe_id}/date={date}")
                yield Finding(severity="fault", kind="identity", where=uri, what=what, advice=advice)


def _fault(kind: str, lake: Lake, file: File, what: str) -> Finding:
    """Say what is wrong with a file."""
    advice = RESTORE.replace("PARTITION", partition_of(file))
    return Finding(severity="fault", kind=kind, where=f"{lake.uri}/{file.key}", what=what, advice=advice)
