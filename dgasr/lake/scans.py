"""Parts in, the SQL that reads them in DuckDB out: the one description of a table for our connections and for others'.

Every part is read with the declared columns: those that came after it was written are null, those that a later version
added are left out.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import pyarrow as pa

from dgasr.lake.commits import Part, indexed_key
from dgasr.lake.schema import LOOSE_TABLES, PARTITIONS, SCHEMA_VERSION, TABLES

REGISTERED = {
    "recording_parts": "recordings",
    "segment_parts": "segments",
    "runs": "runs",
    "evaluations": "evaluations",
    "presence": "presence",
    "posting_parts": "postings",
    "unindexed_parts": "segments",
}
"""Tables as the views find them, by the name they have there; of `unindexed_parts` there are no postings."""

STRANGER = "is no part"
"""What the error says of a file that is Parquet, but not ours."""

NEWER = "was written by a newer dgasr"
"""What the error says of a file whose columns may mean something else than we know."""

TYPES = {
    pa.string(): "varchar",
    pa.int32(): "integer",
    pa.int64(): "bigint",
    pa.float32(): "float",
    pa.float64(): "double",
    pa.date32(): "date",
    pa.timestamp("us", tz="UTC"): "timestamptz",
}
"""Names of the columns' types in DuckDB."""


def scan_statements(parts: Mapping[str, Sequence[Part]], root: str) -> Iterator[str]:
    """Write the views that read the parts of every table.

    Args:
        parts: those of each table, all that readers see.
        root: what stands before a part's key in its path.
    """
    indexed = {indexed_key(part.key) for part in parts["postings"]}
    for view, table in REGISTERED.items():
        keys = [part.key for part in parts[table] if view != "unindexed_parts" or part.key not in indexed]
        yield scan_statement(view, table, [f"{root}/{key}" for key in keys])


def scan_statement(view: str, table: str, paths: Iterable[str]) -> str:
    """Write the view that reads a table's parts.

    Args:
        view: name of the view.
        table: name of a table of `dgasr.lake.schema`.
        paths: where its parts lie, each with its partitions (`…/date=…/…`); without any the view is empty.
    """
    columns = ",\n    ".join(
        f"'{field.name}': {{name: '{field.name}', type: '{_type(field.type)}', default_value: null}}"
        for field in TABLES[table]
    )
    values = "".join(
        f",\n    regexp_extract(filename, '/{field.name}=([^/]+)/', 1)::{_type(field.type)} as \"{field.name}\""
        for field in PARTITIONS[table]
    )
    files = ",\n    ".join("'" + path.replace("'", "''") + "'" for path in paths)
    if not files:
        return _empty(view, table)
    # Partitions are taken from the name of the file and not by hive_partitioning, which excludes `schema`; a filter on
    # them leaves files out all the same.
    return (
        f"create or replace view {view} as\nselect\n    * exclude (filename){values}\n"
        f"from read_parquet([\n    {files}\n], filename = true, schema = map {{\n    {columns}\n}})"
        f"{_guard(table, files)};\n"
    )


def _guard(table: str, files: str) -> str:
    """Write the conditions that make a stranger's file, or one newer than us, fail among parts that no commit names.

    The rows of the former would be read as nulls, those of the latter as what they may not be.
    """
    if table not in LOOSE_TABLES:
        return ""
    is_newer = f"decode(key) = 'dgasr.schema_version' and try_cast(decode(value) as integer) > {SCHEMA_VERSION}"
    return (
        f"\nwhere if(run_id is null, error(concat(filename, ': {STRANGER} of {table}')), true)\nand not exists (\n"
        f"    from parquet_kv_metadata([\n    {files}\n])\n"
        f"    where if({is_newer}, error(concat(file_name, ': {NEWER}')), false)\n)"
    )


def _empty(view: str, table: str) -> str:
    """Write a view of a table that has no part."""
    fields = [*TABLES[table], *PARTITIONS[table]]
    columns = ",\n    ".join(f'null::{_type(field.type)} as "{field.name}"' for field in fields)
    return f"create or replace view {view} as\nselect\n    {columns}\nwhere false;\n"


def _type(kind: pa.DataType) -> str:
    """Name a type as DuckDB does."""
    if pa.types.is_list(kind):
        return f"{_type(kind.value_type)}[]"
    if pa.types.is_struct(kind):
        return "struct(" + ", ".join(f'"{field.name}" {_type(field.type)}' for field in kind) + ")"
    return TYPES[kind]
