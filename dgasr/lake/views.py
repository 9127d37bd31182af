"""A lake's URI in, a DuckDB connection with its tables and the views of `sql/` out. Reads committed parts only.

DuckDB reads the parts itself, columns, row groups and files that a question does not need left out, through
`dgasr.lake.files`: no extension of DuckDB is needed for S3.
"""

import re
from graphlib import TopologicalSorter
from pathlib import Path

import duckdb

from dgasr.errors import ConfigError
from dgasr.lake.files import PROTOCOL, LakeFiles
from dgasr.lake.location import open_existing_lake
from dgasr.lake.scans import scan_statements
from dgasr.lake.snapshot import snapshot

_HERE = Path(__file__).resolve()

SQL_FOLDERS = (_HERE.with_name("sql"), _HERE.parents[2] / "sql")
"""Where the views may lie, one a file: beside this file in a wheel, at the root of a checkout."""

SETTINGS = (
    "set TimeZone = 'UTC'",
    # The number of rows of a part is not known before it is read, and taken for few; ASOF joins would loop over all.
    "set asof_loop_join_threshold = 0",
    "set parquet_metadata_cache = true",
)
"""What the views need, in anybody's DuckDB."""

LOCKS = (
    "set python_enable_replacements = false",
    "set enable_progress_bar = false",
    # A question reads the lake; it can neither read nor write any other file.
    f"set allowed_directories = ['{PROTOCOL}://']",
    "set enable_external_access = false",
    "set lock_configuration = true",
)

REMOTE_THREADS = 16
"""Threads of DuckDB where the lake lies in S3: they wait for requests most of their time."""


def connect(lake_uri: str, preferred_recipe: str = "") -> duckdb.DuckDBPyConnection:
    """Open a lake for questions.

    Args:
        lake_uri: a folder or `s3://` prefix.
        preferred_recipe: recipe whose transcripts count as a recording's latest; empty for the newest of each.

    Returns:
        A connection in memory, with what was committed by now as the tables of `scans.REGISTERED`, and
        the views of `sql/` on top. An unread result blocks the next statement.

    Raises:
        ConfigError: no lake lies there, or the views cannot be found.
        IntegrityError: commits and parts contradict each other, or a newer dgasr wrote them.
        TransientError: the store does not answer.
    """
    return open_questions(lake_uri, preferred_recipe)[0]


def open_questions(lake_uri: str, preferred_recipe: str) -> tuple[duckdb.DuckDBPyConnection, LakeFiles]:
    """Open a lake as `connect` does; what it reads through comes too, and knows what DuckDB's errors mean."""
    found = snapshot(open_existing_lake(lake_uri))
    statements = view_statements()
    files = LakeFiles(found.lake, {part.key: part.size_bytes for parts in found.parts.values() for part in parts})
    connection = open_duckdb()
    connection.register_filesystem(files)
    threads = [f"set threads = {REMOTE_THREADS}"] if "://" in found.lake.uri else []
    scans = scan_statements(found.parts, f"{PROTOCOL}:/")
    try:
        for statement in (*SETTINGS, *threads, *scans, *statements.values(), *LOCKS):
            connection.execute(statement)
    except duckdb.Error as error:  # footers are read for the first time
        connection.close()
        raise files.sort_error(error) or error from error
    connection.execute("set variable preferred_recipe = ?", [preferred_recipe])
    return connection, files


def open_duckdb() -> duckdb.DuckDBPyConnection:
    """Open a DuckDB in memory, without a table, that fetches no extension from the network."""
    return duckdb.connect(config={"autoinstall_known_extensions": False, "autoload_known_extensions": False})


def view_statements() -> dict[str, str]:
    """Read the views, each after those that its `-- sources:` line names.

    Raises:
        ConfigError: the folder is not there.
    """
    folder = next((folder for folder in SQL_FOLDERS if folder.is_dir()), SQL_FOLDERS[0])
    files = {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.sql"))}
    if not files:
        raise ConfigError(
            f"{folder}: the views are not there. Install dgasr from a whole checkout with `make setup`, or from its "
            "wheel."
        )
    sources = {name: [source for source in _sources(text) if source in files] for name, text in files.items()}
    return {name: files[name] for name in TopologicalSorter(sources).static_order()}


def has_rows(statement: str) -> bool:
    """Say whether what a statement of `sql/` creates stands after `from`: a view or a macro of rows, no function."""
    return "create or replace view" in statement or "as table" in statement


def _sources(statement: str) -> list[str]:
    """Return the tables and views that a view's header names."""
    header = re.search(r"^-- sources: *(.+)$", statement, re.MULTILINE)
    return re.findall(r"\w+", header[1]) if header else []
