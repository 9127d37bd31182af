"""The Delta tables of a lake: made, opened, their files at one version, rows as Arrow, and what errors mean.

Writing is `dgasr.lake.ledger`'s. Why Delta Lake, and why one table for both kinds of row:
docs/decisions/0021-delta-lake.md
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from dgasr.errors import ConfigError, DgasrError, IntegrityError, TransientError
from dgasr.lake.location import Lake, storage_error
from dgasr.lake.rows import Row
from dgasr.lake.schema import PARTITIONS, SCHEMA_VERSION, table_schema

READ_THREADS = 16
"""Files read at once: on S3 nearly all of their time is waiting."""

CHECKPOINT_COMMITS = "50"
"""Commits between two checkpoints of a table's log: opening the table reads as many small objects at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """A Parquet file of a table that readers see."""

    key: str
    """Where it lies, from the lake's root."""
    size_bytes: int
    num_rows: int

    @property
    def table(self) -> str:
        """Name of the table."""
        return self.key.partition("/")[0]

    @property
    def partition(self) -> dict[str, str]:
        """What the path says of all its rows, by column."""
        return dict(piece.split("=", 1) for piece in self.key.split("/")[1:-1])


def open_table(lake: Lake, name: str) -> DeltaTable | None:
    """Open a table as it is now; `None` where nobody has written to it.

    ConfigError where access is denied, IntegrityError where its log cannot be read or a newer dgasr wrote it, and
    TransientError where the store does not answer.
    """
    uri = f"{lake.uri}/{name}"
    try:
        with delta_errors(uri):
            table = DeltaTable(lake.table_uri(name), storage_options=dict(lake.storage_options))
            version = (table.metadata().configuration or {}).get("dgasr.schema_version", "0")
    except TableNotFoundError:
        return None
    if int(version) > SCHEMA_VERSION:
        raise IntegrityError(
            f"{uri}: has schema version {version}, and this dgasr reads up to {SCHEMA_VERSION}. Upgrade dgasr."
        )
    return table


def create_table(lake: Lake, name: str) -> DeltaTable:
    """Make a table, unless somebody else is faster."""
    configuration = {
        "delta.checkpointInterval": CHECKPOINT_COMMITS,
        "delta.dataSkippingStatsColumns": "recording_id" if name == "transcripts" else "run_id",
        "dgasr.schema_version": str(SCHEMA_VERSION),
    }
    with delta_errors(f"{lake.uri}/{name}"):
        try:
            return DeltaTable.create(
                lake.table_uri(name),
                schema=table_schema(name),
                partition_by=[field.name for field in PARTITIONS[name]],
                configuration=configuration,
                storage_options=dict(lake.storage_options),
                raise_if_key_not_exists=False,
            )
        except DeltaError as error:
            if (found := open_table(lake, name)) is None:
                raise error
            return found


def active_files(table: DeltaTable | None, name: str, **partition: str) -> list[File]:
    """List the files of a table that readers see at its version, in order; only those of some partitions, if asked."""
    if table is None:
        return []
    actions = pa.table(table.get_add_actions(flatten=True)).select(["path", "size_bytes", "num_records"])
    files = [
        File(key=f"{name}/{unquote(path)}", size_bytes=size_bytes, num_rows=num_rows)
        for path, size_bytes, num_rows in zip(*(column.to_pylist() for column in actions.columns), strict=True)
    ]
    return sorted((file for file in files if partition.items() <= file.partition.items()), key=lambda file: file.key)


def read_file(lake: Lake, file: File, columns: Sequence[str]) -> pa.Table:
    """Read some columns of a file, partition columns too; a column that came after it was written is null.

    IntegrityError where it is missing or no Parquet file, TransientError where the store does not answer.
    """
    try:
        with pyarrow.parquet.ParquetFile(lake.path(file.key), filesystem=lake.filesystem, pre_buffer=True) as source:
            found = source.read(columns=[name for name in columns if name in source.schema_arrow.names])
    except (pa.ArrowException, OSError) as error:
        raise unreadable(lake, file.key, error) from error
    return _completed(found, file, columns)


def read_batches(lake: Lake, file: File, num_rows: int) -> Iterator[pa.RecordBatch]:
    """Read all columns of a file as `read_file` does, some rows at a time.

    pyarrow's own files and not `DeltaTable.to_pyarrow_dataset`: threads of its file system ended one interpreter in
    fifteen with SIGABRT when it went down (deltalake 1.6.6, docs/experiments.md).
    """
    schema = table_schema(file.table)
    try:
        with pyarrow.parquet.ParquetFile(lake.path(file.key), filesystem=lake.filesystem) as source:
            held = [name for name in schema.names if name in source.schema_arrow.names]
            for batch in source.iter_batches(num_rows, columns=held):
                found = _completed(pa.Table.from_batches([batch]), file, schema.names)
                yield from pa.Table.from_arrays(found.columns, schema=schema).to_batches()
    except (pa.ArrowException, OSError) as error:
        raise unreadable(lake, file.key, error) from error


def _completed(found: pa.Table, file: File, columns: Sequence[str]) -> pa.Table:
    """Add what the path says, and nulls for columns that came after the file was written."""
    schema, values = table_schema(file.table), file.partition
    arrays = [
        found[name].cast(schema.field(name).type)
        if name in found.column_names
        else pa.repeat(pa.scalar(values.get(name), pa.string()).cast(schema.field(name).type), found.num_rows)
        for name in columns
    ]
    return pa.Table.from_arrays(arrays, names=list(columns))


def to_arrow(name: str, rows: Sequence[Row]) -> pa.Table:
    """Turn rows into a table of Arrow with the columns of a table or view.

    IntegrityError where a row has other columns, or a value does not fit its column.
    """
    schema = table_schema(name)
    for row in rows:
        # a row of `transcripts` lacks the columns of the other kind
        if (name != "transcripts" and set(row) != set(schema.names)) or not set(row) <= set(schema.names):
            raise IntegrityError(
                f"{name}: a row with missing or unknown columns {sorted(set(row) ^ set(schema.names))}. "
                "Nothing was written; this is a fault of the program that made the rows."
            )
    try:
        return pa.Table.from_pylist(list(rows), schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError) as error:
        raise IntegrityError(f"{name}: a value does not fit its column ({error}). Nothing was written.") from error


def unreadable(lake: Lake, key: str, error: Exception) -> DgasrError:
    """Sort a failure to read a file of a table: the store's, or the file's own."""
    is_stores = isinstance(error, OSError) and (error.errno is not None or "AWS Error" in str(error))
    if is_stores and not isinstance(error, FileNotFoundError):
        return storage_error(lake.uri, error)  # type: ignore[arg-type]
    return IntegrityError(
        f"{lake.uri}/{key}: cannot be read ({error}). Restore it from a copy; "
        "`dgasr lake check` says what to do where there is none."
    )


@contextmanager
def delta_errors(where: str) -> Iterator[None]:
    """Turn errors of Delta Lake into ours, by who has to act; conflicts and missing tables pass as they are."""
    try:
        yield
    except (CommitFailedError, TableNotFoundError):
        raise
    except (OSError, DeltaError, ValueError) as error:
        raise _sorted(where, error) from error


CLOSED = re.compile(
    r"NoSuchBucket|Access ?Denied|Forbidden|Permission denied|Not a directory|File exists|table location"
)
"""What errors of Delta Lake have in them where a person has to act: a place that is none, or no right to it."""

SILENT = re.compile(r"Generic S3|error sending request|timed? ?out|SlowDown|No space left|Server Error")
"""What they have in them where the store did not answer."""


def _sorted(where: str, error: Exception) -> DgasrError:
    """Sort an error by its text: Delta Lake passes on no more of what its store did."""
    text = str(error)
    if CLOSED.search(text):
        return ConfigError(f"{where}: the lake cannot be written or read ({text}). Check its place and permissions.")
    if SILENT.search(text):
        return TransientError(f"{where}: the store did not answer ({text}). Try again; `dgasr doctor` tests it.")
    if isinstance(error, OSError):
        return storage_error(where, error)
    return IntegrityError(
        f"{where}: its log cannot be read ({error}). Restore `_delta_log` from a copy; nothing was changed."
    )
