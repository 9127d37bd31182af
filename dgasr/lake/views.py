"""A lake's URI in, a DuckDB connection with its tables and the views of `sql/` out: one version of each table.

DuckDB reads the Parquet files that Delta Lake names itself, columns, row groups and files that a question does not need
left out, through `dgasr.lake.files`: no extension of DuckDB is needed, not for Delta and not for S3.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import lru_cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import duckdb

from dgasr.errors import ConfigError
from dgasr.lake.files import PROTOCOL, LakeFiles
from dgasr.lake.location import Lake, open_existing_lake
from dgasr.lake.schema import PARTITIONS, TABLES, VIEWS, table_schema
from dgasr.lake.table import File, active_files, open_table

_HERE = Path(__file__).resolve()

SQL_FOLDERS = (_HERE.with_name("sql"), _HERE.parents[2] / "sql")
"""Where the views may lie, one a file: beside this file in a wheel, at the root of a checkout."""

SETTINGS = (
    "set TimeZone = 'UTC'",
    # The number of rows of a file is not known before it is read, and taken for few; ASOF joins would loop over all.
    "set asof_loop_join_threshold = 0",
    "set parquet_metadata_cache = true",
)
"""What the views need, in anybody's DuckDB."""

LOCKS = (
    "set python_enable_replacements = false",
    "set enable_progress_bar = false",
)

READ_ONLY_LOCKS = (
    # A question reads the lake; it can neither read nor write any other file, nor reach the network.
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
        A connection in memory, with what was committed by now as `transcripts`, `runs`, `evaluations` and `presence`,
        and the views of `sql/` on top. An unread result blocks the next statement.

    Raises:
        ConfigError: no lake lies there, or the views cannot be found.
        IntegrityError: the lake cannot be read, or a newer dgasr wrote it.
        TransientError: the store does not answer.
    """
    return open_questions(lake_uri, preferred_recipe)[0]


def connect_tables(lake_uri: str) -> duckdb.DuckDBPyConnection:
    """Open a lake as `connect` does, without the views above `recordings` and `segments`, which take most time."""
    lake = open_existing_lake(lake_uri)
    return open_tables(lake, files_of_tables(lake), row_views())[0]


def ask(connection: duckdb.DuckDBPyConnection, query: str, **values: Any) -> list[dict[str, Any]]:
    """Answer a query with values for its `$name`s, row by row, each by the names of its columns."""
    result = connection.execute(query, values) if values else connection.execute(query)
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def open_questions(
    lake_uri: str, preferred_recipe: str, *, allow_writes: bool = False
) -> tuple[duckdb.DuckDBPyConnection, LakeFiles]:
    """Open a lake as `connect` does; what it reads through comes too, and knows what DuckDB's errors mean.

    With `allow_writes` questions may also reach other files and the network; the lake's own files stay as they are.
    """
    lake = open_existing_lake(lake_uri)
    connection, files = open_tables(lake, files_of_tables(lake), view_statements().values())
    for lock in LOCKS if allow_writes else (*LOCKS, *READ_ONLY_LOCKS):
        connection.execute(lock)
    connection.execute("set variable preferred_recipe = ?", [preferred_recipe])
    return connection, files


def open_tables(
    lake: Lake, tables: Mapping[str, Sequence[File]], views: Iterable[str]
) -> tuple[duckdb.DuckDBPyConnection, LakeFiles]:
    """Open some files of each table, with views over them by their statements; nothing is locked yet."""
    scans = [scan_statement(name, [f"{PROTOCOL}://{file.key}" for file in found]) for name, found in tables.items()]
    # DuckDB binds a view where it is made, with all that it is made of. Over empty tables that takes half of the time,
    # and asks for no file; what the views read is then put in their place.
    empty = [f"create table {name} as {_nothing(name)}" for name in tables]
    scans = [*(f"drop table {name}" for name in tables), *scans]
    sizes = {file.key: file.size_bytes for found in tables.values() for file in found}
    files = LakeFiles(lake, sizes)
    connection = duckdb.connect(config={"autoinstall_known_extensions": False, "autoload_known_extensions": False})
    connection.register_filesystem(files)
    threads = [f"set threads = {REMOTE_THREADS}"] if "://" in lake.uri else []
    try:
        for statement in (*SETTINGS, *threads, *empty, *views, *scans):
            connection.execute(statement)
    except duckdb.Error as error:  # footers are read for the first time
        connection.close()
        raise files.sort_error(error) or error from error
    return connection, files


def files_of_tables(lake: Lake) -> dict[str, list[File]]:
    """List the files of every table at its present version, by table; raises as `connect` does."""
    with ThreadPoolExecutor(len(TABLES)) as pool:
        return dict(zip(TABLES, pool.map(lambda name: active_files(open_table(lake, name), name), TABLES), strict=True))


def part_uris(lake_uri: str, view: str = "segments") -> list[str]:
    """List the Parquet files that hold the rows of a table or view now, for tools that read Parquet and no Delta Lake.

    Absolute paths, or `s3://` URIs, sorted. Partition columns stand in them, as `recipe_id=…/date=…`. They stay
    readable for the grace period of `dgasr lake vacuum`. ConfigError where there is no such table, and as `connect`.
    """
    if view not in (*VIEWS, *TABLES):
        raise ConfigError(f"{view}: is no table of a lake. Name one of {', '.join((*VIEWS, *TABLES))}.")
    lake = open_existing_lake(lake_uri)
    name, partition = ("transcripts", {"row_kind": view.removesuffix("s")}) if view in VIEWS else (view, {})
    return [f"{lake.uri}/{file.key}" for file in active_files(open_table(lake, name), name, **partition)]


def attach_script(lake_uri: str, endpoint_url: str = "") -> str:
    """Write a script that makes a lake's tables and views in anybody's DuckDB, of version 1.5 or later.

    It names the files that readers see now; what came later is in a script that is written again.
    `endpoint_url` says where S3 is, empty for AWS itself; no credentials are written, DuckDB finds them as we do.
    Raises as `connect`.
    """
    lake = open_existing_lake(lake_uri)
    at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    pieces = [
        f"-- {lake_uri} as it was at {at} UTC, for DuckDB 1.5 or later: duckdb -init lake.sql\n"
        "-- Written by `dgasr lake attach`; write it again to see what was committed since.\n",
        *(f"{setting};\n" for setting in SETTINGS),
    ]
    if "://" in lake.uri:
        endpoint = urlsplit(endpoint_url)
        style = f"url_style 'path', use_ssl {str(endpoint.scheme == 'https').lower()}"
        where = f", endpoint '{endpoint.netloc}', {style}" if endpoint.netloc else ""
        pieces.append(
            "install httpfs;\nload httpfs;\ninstall aws;\nload aws;\n"
            f"create or replace secret dgasr_lake (type s3, provider credential_chain{where});\n"
        )
    for name, found in files_of_tables(lake).items():
        pieces.append(scan_statement(name, [f"{lake.uri}/{file.key}" for file in found]))
    return "\n".join([*pieces, *view_statements().values()])


def view_statements() -> dict[str, str]:
    """Read the views, each after those that its `-- sources:` line names; ConfigError where the folder is missing."""
    folder = next((folder for folder in SQL_FOLDERS if folder.is_dir()), SQL_FOLDERS[0])
    files = {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.sql"))}
    if not files:
        raise ConfigError(
            f"{folder}: the views are not there. Install dgasr from a whole checkout with `make setup`, or from its "
            "wheel."
        )
    sources = {name: [source for source in _sources(text) if source in files] for name, text in files.items()}
    return {name: files[name] for name in TopologicalSorter(sources).static_order()}


def row_views() -> list[str]:
    """Read the statements of `recordings` and `segments`, the views that the others are made of."""
    statements = view_statements()
    return [statements[view] for view in VIEWS]


def scan_statement(name: str, paths: Sequence[str]) -> str:
    """Write the view that reads files of a table; without any it is empty.

    Every file is read with the declared columns: those that came after it was written are null, those that a later
    version added are left out.
    """
    in_path = {field.name for field in PARTITIONS[name]}
    files = ",\n    ".join("'" + path.replace("'", "''") + "'" for path in paths)
    if not files:
        return f"create or replace view {name} as\n{_nothing(name)}"
    columns = ",\n    ".join(
        f"'{column}': {{name: '{column}', type: '{kind}', default_value: null}}"
        for column, kind in _types(name).items()
        if column not in in_path
    )
    values = "".join(
        f",\n    regexp_extract(filename, '.*/{column}=([^/]+)/', 1)::{kind} as \"{column}\""
        for column, kind in _types(name).items()
        if column in in_path
    )
    # Partitions are taken from the name of the file and not by hive_partitioning, which excludes `schema`; a filter on
    # them leaves files out all the same. The last folder of that name counts: the lake may lie below another.
    return (
        f"create or replace view {name} as\nselect\n    * exclude (filename){values}\n"
        f"from read_parquet([\n    {files}\n], filename = true, schema = map {{\n    {columns}\n}});\n"
    )


def _nothing(name: str) -> str:
    """Write the question for the columns of a table, and for no row."""
    columns = ",\n    ".join(f'null::{kind} as "{column}"' for column, kind in _types(name).items())
    return f"select\n    {columns}\nwhere false;\n"


@lru_cache
def _types(name: str) -> dict[str, str]:
    """Name the types of a table's columns as DuckDB does."""
    with duckdb.connect() as connection:
        found = connection.from_arrow(table_schema(name).empty_table())
        return dict(zip(found.columns, map(str, found.types), strict=True))


def _sources(statement: str) -> list[str]:
    """Return the tables and views that a view's header names."""
    header = re.search(r"^-- sources: *(.+)$", statement, re.MULTILINE)
    return re.findall(r"\w+", header[1]) if header else []
