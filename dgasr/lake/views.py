"""A lake's URI in, a DuckDB connection with its tables and the views of `sql/` out. Reads committed parts only.

The parts reach DuckDB as pyarrow datasets with the declared schema, which works alike on folders and S3, needs no
DuckDB extension, and pushes filters and columns down to the files.
"""

import re
from graphlib import TopologicalSorter
from pathlib import Path

import duckdb

from dgasr.errors import ConfigError
from dgasr.lake.datasets import dataset_of
from dgasr.lake.location import open_existing_lake
from dgasr.lake.snapshot import snapshot

SQL_FOLDER = Path(__file__).resolve().parents[2] / "sql"
"""The views, one a file; it stands beside the package in a checkout and in an editable installation."""

SETTINGS = (
    "set TimeZone = 'UTC'",
    "set python_enable_replacements = false",
    # A question reads the lake; it can neither read nor write any other file.
    "set enable_external_access = false",
    "set lock_configuration = true",
)

REGISTERED = {
    "recording_parts": "recordings",
    "segment_parts": "segments",
    "runs": "runs",
    "evaluations": "evaluations",
    "presence": "presence",
}
"""Tables as the views find them, by the name they have there."""


def connect(lake_uri: str) -> duckdb.DuckDBPyConnection:
    """Open a lake for questions.

    Args:
        lake_uri: a folder or `s3://` prefix.

    Returns:
        A connection in memory, with what was committed by now as the tables of `REGISTERED`, and
        the views of `sql/` on top. An unread result blocks the next statement.

    Raises:
        ConfigError: no lake lies there, or the views cannot be found.
        IntegrityError: commits and parts contradict each other, or a newer dgasr wrote them.
        TransientError: the store does not answer.
    """
    found = snapshot(open_existing_lake(lake_uri))
    connection = duckdb.connect(config={"autoinstall_known_extensions": False, "autoload_known_extensions": False})
    for name, table in REGISTERED.items():
        connection.register(name, dataset_of(found, table))
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
