"""A lake's URI in, a DuckDB connection with its tables and the views of `sql/` out. Reads committed parts only.

The parts reach DuckDB as pyarrow datasets with the declared schema, which works alike on folders and S3, needs no
DuckDB extension, and pushes filters and columns down to the files.
"""

import re
from collections.abc import Sequence
from datetime import date
from graphlib import TopologicalSorter
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.dataset

from dgasr.errors import ConfigError
from dgasr.lake.commits import check_parts, read_commits
from dgasr.lake.location import Lake, open_existing_lake
from dgasr.lake.schema import PARTITIONS, table_schema

SQL_FOLDER = Path(__file__).resolve().parents[2] / "sql"
"""The views, one a file; it stands beside the package in a checkout and in an editable installation."""

SETTINGS = (
    "set TimeZone = 'UTC'",
    "set python_enable_replacements = false",
    # A question reads the lake; it can neither read nor write any other file.
    "set enable_external_access = false",
    "set lock_configuration = true",
)

PARTITION_VALUE = re.compile(r"/(recipe_id|date)=([^/]+)")


def connect(lake_uri: str) -> duckdb.DuckDBPyConnection:
    """Open a lake for questions.

    Args:
        lake_uri: a folder or `s3://` prefix.

    Returns:
        A connection in memory, with what was committed by now as `recording_parts`, `segment_parts` and `runs`, and
        the views of `sql/` on top. An unread result blocks the next statement.

    Raises:
        ConfigError: no lake lies there, or the views cannot be found.
        IntegrityError: commits and parts contradict each other, or a newer dgasr wrote them.
        TransientError: the store does not answer.
    """
    lake = open_existing_lake(lake_uri)
    commits = read_commits(lake, None)
    connection = duckdb.connect(config={"autoinstall_known_extensions": False, "autoload_known_extensions": False})
    for name, table in (("recording_parts", "recordings"), ("segment_parts", "segments")):
        connection.register(name, _dataset(lake, table, [part.key for part in check_parts(lake, commits, table)]))
    run_keys = [key for key in lake.list_sizes("runs") if key.endswith(".parquet")]
    connection.register("runs", _dataset(lake, "runs", run_keys))
    for statement in (*view_statements().values(), *SETTINGS):
        connection.execute(statement)
    return connection


def view_statements() -> dict[str, str]:
    """Read the views, each after those that its `-- sources:` line names.

    Raises:
        ConfigError: the folder is not there.
    """
    files = {path.stem: path.read_text(encoding="utf-8") for path in sorted(SQL_FOLDER.glob("*.sql"))}
    if not files:
        raise ConfigError(
            f"{SQL_FOLDER}: the views are not there. They stand in the repository beside the package: "
            "install it from a checkout with `make setup` or `pip install -e .`."
        )
    sources = {name: [source for source in _sources(text) if source in files] for name, text in files.items()}
    return {name: files[name] for name in TopologicalSorter(sources).static_order()}


def _sources(statement: str) -> list[str]:
    """Return the tables and views that a view's header names."""
    header = re.search(r"^-- sources: *(.+)$", statement, re.MULTILINE)
    return re.findall(r"\w+", header[1]) if header else []


def _dataset(lake: Lake, table: str, keys: Sequence[str]) -> pyarrow.dataset.Dataset | pa.Table:
    """Make a dataset of the parts of a table, each with the partition columns that its key says."""
    schema = table_schema(table)
    if not keys:
        return schema.empty_table()
    return pyarrow.dataset.FileSystemDataset.from_paths(
        [lake.path(key) for key in keys],
        schema=schema,
        format=pyarrow.dataset.ParquetFileFormat(),
        filesystem=lake.filesystem,
        partitions=[_partition(table, key) for key in keys],
    )


def _partition(table: str, key: str) -> pyarrow.dataset.Expression:
    """Return what a part's key says of all its rows."""
    values = dict(PARTITION_VALUE.findall(key))
    expression = pyarrow.dataset.scalar(True)
    for field in PARTITIONS[table]:
        text = values[field.name]
        value = date.fromisoformat(text) if pa.types.is_date(field.type) else text
        expression &= pyarrow.dataset.field(field.name) == pa.scalar(value, field.type)
    return expression
