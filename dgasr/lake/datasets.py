"""Parts as rows: datasets that push filters and columns down, and single parts read whole.

Every part is read with the declared schema: columns that came after it was written are null.
"""

import errno
import re
from collections.abc import Sequence
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet

from dgasr.errors import DgasrError, IntegrityError
from dgasr.lake.commits import Part
from dgasr.lake.location import Lake, storage_error
from dgasr.lake.schema import PARTITIONS, table_schema

PARTITION_VALUE = re.compile(r"/(recipe_id|date)=([^/]+)")

WHOLE_BYTES = 2**20
"""Length up to which a part is fetched in one request, whatever is wanted of it."""


def dataset_of(lake: Lake, table: str, parts: Sequence[Part]) -> pyarrow.dataset.Dataset | pa.Table:
    """Make a dataset of parts of a table; an empty table where there are none.

    Args:
        lake: the lake.
        table: name of a table of `dgasr.lake.schema`.
        parts: those of its parts that are wanted.
    """
    schema = table_schema(table)
    if not parts:
        return schema.empty_table()
    return pyarrow.dataset.FileSystemDataset.from_paths(
        [lake.path(part.key) for part in parts],
        schema=schema,
        format=pyarrow.dataset.ParquetFileFormat(),
        filesystem=lake.filesystem,
        partitions=[_partition(part) for part in parts],
    )


def read_part(lake: Lake, part: Part, columns: Sequence[str]) -> pa.Table:
    """Read some columns of a part.

    Args:
        lake: the lake.
        part: one of its parts.
        columns: names of columns, in the order in which they are wanted, partition columns too.

    Raises:
        IntegrityError: the part is no Parquet file of this table.
        TransientError: the store does not answer.
    """
    if part.size_bytes <= WHOLE_BYTES:
        return decode_part(lake, part, lake.read(part.key), columns)
    try:
        with pyarrow.parquet.ParquetFile(lake.path(part.key), filesystem=lake.filesystem, pre_buffer=True) as file:
            return _read(file, part, columns)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(lake, part.key, error) from error


def decode_part(lake: Lake, part: Part, data: bytes, columns: Sequence[str]) -> pa.Table:
    """Read some columns of a part whose bytes are there already; raises as `read_part` does."""
    try:
        with pyarrow.parquet.ParquetFile(pa.BufferReader(data)) as file:
            return _read(file, part, columns)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(lake, part.key, error) from error


def unreadable(lake: Lake, key: str, error: Exception) -> DgasrError:
    """Sort a failure to read a part: the store's, or the part's own."""
    if isinstance(error, OSError) and (error.errno not in (None, errno.ENOENT) or "AWS Error" in str(error)):
        return storage_error(lake.uri, error)
    return IntegrityError(
        f"{lake.uri}/{key}: cannot be read ({error}). Restore it from a copy; "
        "`dgasr lake check` says what to do where there is none."
    )


def partition_values(table: str, key: str) -> dict[str, Any]:
    """Return what a part's key says of all its rows: a string or a date for each partition column.

    Raises:
        IntegrityError: the key does not say it.
    """
    values: dict[str, Any] = dict(PARTITION_VALUE.findall(key))
    try:
        return {
            field.name: date.fromisoformat(values[field.name]) if pa.types.is_date(field.type) else values[field.name]
            for field in PARTITIONS[table]
        }
    except (KeyError, ValueError) as error:
        names = "/".join(f"{field.name}=…" for field in PARTITIONS[table])
        raise IntegrityError(
            f"{key}: a part of {table} lies under {names}, and this one does not ({error}). "
            "Move it out of the lake if a stranger put it there; otherwise put it back where it lay."
        ) from error


def _read(file: pyarrow.parquet.ParquetFile, part: Part, columns: Sequence[str]) -> pa.Table:
    """Read the columns that were asked for: partition columns from the key, those that came later as null."""
    found = file.read(columns=[name for name in columns if name in file.schema_arrow.names])
    schema, values = table_schema(part.table), partition_values(part.table, part.key)
    arrays = [
        found[name]
        if name in found.column_names
        else pa.repeat(pa.scalar(values.get(name), schema.field(name).type), found.num_rows)
        for name in columns
    ]
    return pa.Table.from_arrays(arrays, schema=pa.schema([schema.field(name) for name in columns]))


def _partition(part: Part) -> pyarrow.dataset.Expression:
    """Return what a part's key says of all its rows, as a filter knows it."""
    expression = pyarrow.dataset.scalar(True)
    for name, value in partition_values(part.table, part.key).items():
        kind = table_schema(part.table).field(name).type
        expression &= pyarrow.dataset.field(name) == pa.scalar(value, kind)
    return expression
