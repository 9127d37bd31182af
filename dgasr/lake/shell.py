"""The work behind `dgasr sql`: questions and a lake in, answers out. Reads the lake and nothing else."""

import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import duckdb
import pyarrow as pa

from dgasr.errors import ConfigError, DgasrError
from dgasr.lake.answers import FORMATS, write_answer, write_parquet
from dgasr.lake.views import open_questions

SHOWN_ONE_BY_ONE = ("table", "md")
"""Formats in which the answers of several questions can follow each other."""


class Questions:
    """A lake that is open for questions; `with` closes it."""

    def __init__(self, lake_uri: str, preferred_recipe: str = "") -> None:
        """Open the lake; raises as `dgasr.lake.views.connect` does."""
        self._connection, self._files = open_questions(lake_uri, preferred_recipe)

    def __enter__(self) -> "Questions":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def names(self) -> list[str]:
        """List the tables, views and macros."""
        found = self._connection.execute(
            "select table_name from information_schema.tables union "
            "select function_name || '(…)' from duckdb_functions() "
            "where function_type in ('macro', 'table_macro') and not internal order by all"
        )
        return [name for (name,) in found.fetchall()]

    def column_names(self) -> list[str]:
        """List the names of all columns."""
        found = self._connection.execute("select distinct column_name from information_schema.columns order by all")
        return [name for (name,) in found.fetchall()]

    def columns(self, name: str) -> list[tuple[str, str]]:
        """List a table's columns with their types; raises `ConfigError` where there is no such table."""
        with self._errors():
            described = self._connection.execute(f'describe "{name}"').fetchall()
        return [(row[0], row[1]) for row in described]

    def register(self, name: str, rows: pa.Table) -> None:
        """Let questions read a table from memory."""
        self._connection.register(name, rows)

    def execute(self, sql: str, values: Mapping[str, Any]) -> duckdb.DuckDBPyConnection:
        """Ask one question with values for its `$name`s; raises as `answer` does. An unread result blocks the next."""
        with self._errors():
            return self._connection.execute(sql, dict(values)) if values else self._connection.execute(sql)

    def fetch(self, cursor: duckdb.DuckDBPyConnection, num_rows: int) -> list[tuple[Any, ...]]:
        """Fetch more of a result, nothing at its end; raises as `answer` does."""
        with self._errors():
            return cursor.fetchmany(num_rows)

    def answer(self, sql: str, format: str, out: TextIO) -> None:
        """Answer one question or several.

        Args:
            sql: statements; what they set or create lasts until the lake is closed.
            format: one of `FORMATS`.
            out: where the answers go; `parquet` goes to its `buffer`.

        Raises:
            ConfigError: the SQL is wrong, holds no question, or holds several where the format has room for one.
            IntegrityError: a part of the lake cannot be read.
            TransientError: the store does not answer.
        """
        with self._errors():
            statements = self._connection.extract_statements(sql)
            asking = [s for s in statements if s.type in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)]
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
            write_parquet(self._connection.sql(statement), _binary(out))
            return
        cursor = self._connection.execute(statement)
        if is_asking:
            write_answer(cursor, format, out)

    def _stoppable(self, work: Callable[[], None]) -> None:
        """Work in a thread of its own: one that waits for DuckDB's hears of Ctrl-C only when they are done."""
        with ThreadPoolExecutor(1) as pool:
            working = pool.submit(work)
            try:
                working.result()
            except KeyboardInterrupt:
                self._connection.interrupt()
                raise

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
                f"sql: {text.splitlines()[-1]}\nA question reads the lake and nothing else: use --out FILE."
            )
        if isinstance(error, duckdb.CatalogException):
            text += f"\nTables and views: {', '.join(self.names())}."
        return ConfigError(f"sql: {text}")


def run_sql(question: str, lake_uri: str, format: str, out: TextIO, preferred_recipe: str = "") -> None:
    """Answer a question about a lake.

    Args:
        question: SQL, a file of SQL (its name ends in `.sql`), or the name of a table or view.
        lake_uri: a folder or `s3://` prefix.
        format: one of `FORMATS`; `json` is one array of objects.
        out: where the answer goes.
        preferred_recipe: recipe whose transcripts count as the latest; empty for the newest.

    Raises:
        ConfigError: the format, the file, the lake or the SQL is wrong.
        IntegrityError: a part of the lake cannot be read.
        TransientError: the store does not answer.
    """
    if format not in FORMATS:
        raise ConfigError(f"--format {format}: is none of {', '.join(FORMATS)}.")
    sql = read_question(question)
    with Questions(lake_uri, preferred_recipe) as questions:
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


def _binary(out: TextIO) -> BinaryIO:
    """Return where bytes go that are no text."""
    if out.isatty():
        raise ConfigError("--format parquet: is not for a terminal. Give --out FILE, or redirect the output.")
    out.flush()
    return out.buffer if hasattr(out, "buffer") else sys.stdout.buffer
