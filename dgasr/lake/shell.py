"""The work behind `dgasr sql`: a question and a lake in, rows as a table, CSV or JSON out."""

import csv
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

import duckdb

from dgasr.errors import ConfigError, DgasrError, IntegrityError
from dgasr.lake.table import format_table
from dgasr.lake.views import connect

FORMATS = ("table", "csv", "json")

TABLE_ROWS = 1000
"""Rows that a table shows: it must be measured before it is printed. CSV and JSON stream all of them."""

PIPE_WIDTH = 120
"""Characters a line of a table has where nobody's terminal says otherwise."""

Rows = Iterator[Sequence[Any]]


def run_sql(query_or_file: str, lake_uri: str, format: str, out: TextIO) -> None:
    """Answer a question about a lake.

    Args:
        query_or_file: SQL, a file of SQL (its name ends in `.sql`), or the name of a table or view.
        lake_uri: a folder or `s3://` prefix.
        format: `table`, `csv` or `json` (one array of objects).
        out: where the answer goes.

    Raises:
        ConfigError: the format, the file, the lake or the SQL is wrong.
        IntegrityError: a part of the lake cannot be read.
        TransientError: the store does not answer.
    """
    if format not in FORMATS:
        raise ConfigError(f"--format {format}: is none of {', '.join(FORMATS)}.")
    query = _query(query_or_file)
    with connect(lake_uri) as connection:
        try:
            cursor = connection.execute(query)
            if cursor is None or cursor.description is None:  # nothing but comments; a statement without rows
                raise ConfigError("sql: holds no question. Write a `select …`, or name a view.")
            _write(format, [column[0] for column in cursor.description], _fetch(cursor), out)
        except duckdb.Error as error:
            raise _sql_error(error, lake_uri, connection) from error


def _query(query_or_file: str) -> str:
    """Return the SQL that an argument stands for."""
    text = query_or_file.strip()
    if re.fullmatch(r"[A-Za-z_]\w*", text):
        return f'select * from "{text}"'
    if not text.endswith(".sql"):
        return text
    try:
        return Path(text).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{text}: the file cannot be read ({error}). Give SQL or a file that holds it.") from error


def _fetch(cursor: duckdb.DuckDBPyConnection) -> Rows:
    """Yield a result's rows without holding all of them."""
    while rows := cursor.fetchmany(1000):
        yield from rows


def _write(format: str, columns: list[str], rows: Rows, out: TextIO) -> None:
    """Write a result in one of `FORMATS`."""
    if format == "csv":
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_csv_value(value) for value in row] for row in rows)
    elif format == "json":
        _write_json(columns, rows, out)
    else:
        _write_table(columns, rows, out)


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
    shown = [row for _, row in zip(range(TABLE_ROWS), rows, strict=False)]
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


def _sql_error(error: duckdb.Error, lake_uri: str, connection: duckdb.DuckDBPyConnection) -> DgasrError:
    """Sort an error of DuckDB by who has to act."""
    text = str(error).strip()
    if "reading the stream" in text or isinstance(error, duckdb.IOException):
        return IntegrityError(
            f"{lake_uri}: a part cannot be read ({text}). Restore the file from a copy, "
            "or delete the shard's commit and parts and transcribe its recordings again."
        )
    if isinstance(error, duckdb.PermissionException):
        return ConfigError(f"sql: {text}\nA question reads the lake and nothing else: redirect the output.")
    names = connection.execute("select table_name from information_schema.tables order by all").fetchall()
    return ConfigError(f"sql: {text}\nTables and views: {', '.join(name for (name,) in names)}, search('words').")
