"""What readers of a lake see, with the views and without them."""

from pathlib import Path

from dgasr.lake.location import open_lake
from dgasr.lake.schema import TABLES, table_schema
from dgasr.lake.table import active_files, open_table, read_file
from dgasr.lake.views import connect


def rows_of(lake: str) -> dict[str, list[str]]:
    """All visible rows of every table, in an order of their own."""
    opened = open_lake(lake)
    return {
        name: sorted(
            repr(row)
            for file in active_files(open_table(opened, name), name)
            for row in read_file(opened, file, table_schema(name).names).to_pylist()
        )
        for name in TABLES
    }


def keys_of(lake: str, name: str = "transcripts", **partition: str) -> list[str]:
    """Keys of the files of a table that readers see."""
    return [file.key for file in active_files(open_table(open_lake(lake), name), name, **partition)]


def file_of(lake: str | Path, row_kind: str = "segment", **partition: str) -> Path:
    """The first file with rows of a kind."""
    return Path(lake) / keys_of(str(lake), row_kind=row_kind, **partition)[0]


def ask(lake: str, query: str) -> list[tuple]:
    """Open a lake for one question."""
    with connect(lake) as connection:
        return connection.execute(query).fetchall()
