"""A result of DuckDB in; a table, CSV, JSON, Parquet or Markdown out. Knows no lake and no question."""

import csv
import json
import shutil
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from itertools import islice
from typing import Any, BinaryIO, TextIO

import duckdb
import pyarrow as pa
import pyarrow.parquet

from dgasr.lake.layout import format_markdown, format_table

FORMATS = ("table", "csv", "json", "parquet", "md")

TABLE_ROWS = 1000
"""Rows that a table shows: it must be measured before it is printed. The other formats have all of them."""

PIPE_WIDTH = 120
"""Characters a line of a table has where nobody's terminal says otherwise."""

PARQUET_ROWS = 65_536
"""Rows of a row group that a Parquet answer is written in."""

Rows = Iterator[Sequence[Any]]


def write_answer(cursor: duckdb.DuckDBPyConnection, format: str, out: TextIO) -> None:
    """Write a result as text.

    Args:
        cursor: a connection that has executed a question.
        format: one of `FORMATS`, not `parquet`. `json` is one array of objects.
        out: where to.
    """
    columns, rows = [column[0] for column in cursor.description], _fetch(cursor)
    if format == "csv":
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_csv_value(value) for value in row] for row in rows)
    elif format == "json":
        _write_json(columns, rows, out)
    elif format == "md":
        out.writelines(format_markdown(columns, rows))
    else:
        _write_table(columns, rows, out)


def write_parquet(answer: duckdb.DuckDBPyRelation, out: BinaryIO) -> None:
    """Write a result as a Parquet file, a row group after the other."""
    reader: pa.RecordBatchReader = answer.to_arrow_reader(PARQUET_ROWS)
    with pyarrow.parquet.ParquetWriter(out, reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)


def _fetch(cursor: duckdb.DuckDBPyConnection) -> Rows:
    """Yield a result's rows without holding all of them."""
    while rows := cursor.fetchmany(1000):
        yield from rows


def _write_json(columns: list[str], rows: Rows, out: TextIO) -> None:
    """Write one array, one object a line."""
    separator = "[\n"
    for row in rows:
        record = dict(zip(columns, map(_plain, row), strict=True))
        out.write(separator + json.dumps(record, ensure_ascii=False))
        separator = ",\n"
    out.write("[]\n" if separator == "[\n" else "\n]\n")


def _write_table(columns: list[str], rows: Rows, out: TextIO) -> None:
    """Write what fits into a table, and say where that is not all."""
    shown = list(islice(rows, TABLE_ROWS))
    width = shutil.get_terminal_size((PIPE_WIDTH, 24)).columns if out.isatty() else PIPE_WIDTH
    out.write(format_table(columns, shown, width))
    if next(rows, None) is not None:
        out.write(f"… the first {TABLE_ROWS} rows. Add a `limit`, or take --format csv for all of them.\n")
    else:
        out.write(f"{len(shown)} row{'' if len(shown) == 1 else 's'}\n")


def _plain(value: Any) -> Any:
    """Turn a value into what JSON can hold."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float | Decimal):
        number = float(value)
        return number if abs(number) < float("inf") else None
    if isinstance(value, datetime | date):
        return value.isoformat()
    return value if isinstance(value, str | int | bool | None) else str(value)


def _csv_value(value: Any) -> Any:
    """Turn a value into what a CSV cell can hold; nested values become JSON."""
    plain = _plain(value)
    return json.dumps(plain, ensure_ascii=False) if isinstance(plain, dict | list) else plain
