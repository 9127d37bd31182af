"""The work behind `dgasr sql`: questions and a lake in, answers out. Reads the lake and nothing else."""

import contextlib
import csv
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import date
from decimal import Decimal
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import duckdb
import pyarrow as pa
import pyarrow.parquet

from dgasr.errors import ConfigError, DgasrError
from dgasr.lake.views import open_questions
from dgasr.tables import format_table, line_width, markdown_lines

SHOWN_ONE_BY_ONE = ("table", "md")
"""Formats in which the answers of several questions can follow each other."""

TABLE_ROWS = 1000
"""Rows that a table shows: it must be measured before it is printed. The other formats have all of them."""

PARQUET_ROWS = 65_536
"""Rows of a row group that a Parquet answer is written in."""

INTERRUPT_S = 0.1
"""Between two tries to stop a question, s."""

Rows = Iterator[Sequence[Any]]


class Questions:
    """A lake that is open for questions; `with` closes it.

    Everything here raises ConfigError where the SQL is wrong, and as `dgasr.lake.views.connect` does. An unread result
    blocks the next question.
    """

    def __init__(self, lake_uri: str, preferred_recipe: str = "", *, allow_writes: bool = False) -> None:
        self._connection, self._files = open_questions(lake_uri, preferred_recipe, allow_writes=allow_writes)

    def __enter__(self) -> "Questions":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def register(self, name: str, rows: pa.Table) -> None:
        """Let questions read a table from memory."""
        self._connection.register(name, rows)

    def execute(self, sql: str, values: Mapping[str, Any]) -> duckdb.DuckDBPyConnection:
        """Ask one question with values for its `$name`s."""
        with self._errors():
            return self._connection.execute(sql, dict(values)) if values else self._connection.execute(sql)

    def fetch(self, cursor: duckdb.DuckDBPyConnection, num_rows: int) -> list[tuple[Any, ...]]:
        """Fetch more of a result, nothing at its end."""
        with self._errors():
            return cursor.fetchmany(num_rows)

    def answer(self, sql: str, format: str, out: TextIO) -> None:
        """Answer one question or several in a format; `parquet` goes to the `buffer` of `out`.

        What they set or create lasts until the lake is closed. Raises ConfigError too where there are several and the
        format has room for one answer.
        """
        with self._errors():
            statements = self._connection.extract_statements(sql)
            asking = list(filter(_is_asking, statements))
            if not statements:
                raise ConfigError("sql: holds no question. Write a `select …`, or name a view.")
            if len(asking) > 1 and format not in SHOWN_ONE_BY_ONE:
                raise ConfigError(
                    f"sql: --format {format} has room for one answer, and these are {len(asking)} questions."
                )
            for statement in statements:
                self._stoppable(partial(self._answer_one, statement, statement in asking, format, out))

    def _answer_one(self, statement: duckdb.Statement, is_asking: bool, format: str, out: TextIO) -> None:
        if is_asking and format == "parquet":
            reader: pa.RecordBatchReader = self._connection.sql(statement).to_arrow_reader(PARQUET_ROWS)
            with pyarrow.parquet.ParquetWriter(_binary(out), reader.schema, compression="zstd") as writer:
                for batch in reader:
                    writer.write_batch(batch)
            return
        cursor = self._connection.execute(statement)
        if is_asking:
            write_answer(cursor, format, out)

    def _stoppable(self, work: Callable[[], None]) -> None:
        """Work in a thread of its own: one that waits for DuckDB's threads gets Ctrl-C only when they are done."""
        with ThreadPoolExecutor(1) as pool:
            working = pool.submit(work)
            try:
                working.result()
            except KeyboardInterrupt:
                while not working.done():  # what comes before DuckDB has begun with the question does not stop it
                    self._connection.interrupt()
                    wait([working], timeout=INTERRUPT_S)
                raise

    def _names(self) -> list[str]:
        """List the tables, views and macros; a macro ends in `(…)`."""
        found = self._connection.execute(
            "select table_name from information_schema.tables union "
            "select function_name || '(…)' from duckdb_functions() "
            "where function_type in ('macro', 'table_macro') and not internal order by all"
        )
        return [name for (name,) in found.fetchall()]

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn errors of DuckDB into ours, by who has to act; Ctrl-C in a question is one elsewhere, too."""
        try:
            yield
        except (duckdb.InterruptException, RuntimeError) as error:
            if "nterrupt" not in str(error):
                raise
            raise KeyboardInterrupt from error
        except duckdb.Error as error:
            raise self._files.sort_error(error) or self._wrong(error) from error

    def _wrong(self, error: duckdb.Error) -> DgasrError:
        """Say what is wrong with a question."""
        text = str(error).strip()
        if isinstance(error, duckdb.PermissionException) or "PermissionError" in text:
            return ConfigError(
                f"sql: {text.splitlines()[-1]}\nA question reads the lake and nothing else: use --out FILE for its "
                "answer, or --allow-writes for other files and the network."
            )
        if isinstance(error, duckdb.CatalogException):
            text += f"\nTables and views: {', '.join(self._names())}."
        return ConfigError(f"sql: {text}")


def _is_asking(statement: duckdb.Statement) -> bool:
    """Say whether a statement has an answer to be shown."""
    try:
        return statement.type in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
    except ValueError:  # a kind that DuckDB's Python has no name for, such as `update extensions`
        return False


def run_sql(
    question: str, lake_uri: str, format: str, out: TextIO, preferred_recipe: str = "", *, allow_writes: bool = False
) -> None:
    """Open a lake and answer a question: SQL, a file of SQL (its name ends in `.sql`), or the name of a view.

    Raises as `Questions` does, and ConfigError where the file is wrong.
    """
    sql = read_question(question)
    with Questions(lake_uri, preferred_recipe, allow_writes=allow_writes) as questions:
        questions.answer(sql, format, out)


def read_question(question: str) -> str:
    """Return the SQL that an argument stands for: itself, a file's, or that of a view's name."""
    text = question.strip()
    if re.fullmatch(r"[A-Za-z_]\w*", text):
        return f'select * from "{text}"'
    if not text.endswith(".sql"):
        return text
    try:
        return Path(text).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{text}: the file cannot be read ({error}). Give SQL or a file that holds it.") from error


def write_answer(cursor: duckdb.DuckDBPyConnection, format: str, out: TextIO) -> None:
    """Write a result as text, not as `parquet`, without holding all of it; `json` is one array."""
    columns, rows = [column[0] for column in cursor.description], _fetch(cursor)
    if format == "csv":
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_csv_value(value) for value in row] for row in rows)
    elif format == "json":
        write_json_array((dict(zip(columns, map(_plain, row), strict=True)) for row in rows), out)
    elif format == "md":
        out.writelines(markdown_lines(columns, rows))
    else:
        _write_table(columns, rows, out)


def write_json_array(records: Iterable[Mapping[str, Any]], out: TextIO, indent: int | None = None) -> None:
    """Write one array of records, without holding all of it."""
    separator = "[\n"
    for record in records:
        out.write(separator + json.dumps(record, ensure_ascii=False, indent=indent))
        separator = ",\n"
    out.write("[]\n" if separator == "[\n" else "\n]\n")


def _write_table(columns: list[str], rows: Rows, out: TextIO) -> None:
    """Write what fits into a table, and say where that is not all."""
    shown = list(islice(rows, TABLE_ROWS))
    out.write(format_table(columns, shown, line_width(out)))
    if next(rows, None) is not None:
        out.write(f"… the first {TABLE_ROWS} rows. Add a `limit`, or take --format csv for all of them.\n")
    else:
        out.write(f"{len(shown)} row{'' if len(shown) == 1 else 's'}\n")


def _fetch(cursor: duckdb.DuckDBPyConnection) -> Rows:
    while rows := cursor.fetchmany(1000):
        yield from rows


def _plain(value: Any) -> Any:
    """Turn a value into what JSON can hold."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float | Decimal):
        number = float(value)
        return number if abs(number) < float("inf") else None
    if isinstance(value, date):  # and times, which are dates
        return value.isoformat()
    return value if isinstance(value, str | int | bool | None) else str(value)


def _csv_value(value: Any) -> Any:
    """Turn a value into what a CSV cell can hold; nested values become JSON."""
    plain = _plain(value)
    return json.dumps(plain, ensure_ascii=False) if isinstance(plain, dict | list) else plain


def _binary(out: TextIO) -> BinaryIO:
    """Return where bytes go that are no text."""
    if out.isatty():
        raise ConfigError("--format parquet: is not for a terminal. Give --out FILE, or redirect the output.")
    out.flush()
    return out.buffer if hasattr(out, "buffer") else sys.stdout.buffer
