"""What readers of a lake see, with the views and without them."""

from dgasr.lake.datasets import read_part
from dgasr.lake.location import open_lake
from dgasr.lake.schema import DERIVED_TABLES, table_schema
from dgasr.lake.snapshot import snapshot
from dgasr.lake.views import connect


def rows_of(lake: str) -> dict[str, list[str]]:
    """All visible rows of every table that is not made of others, in an order of their own."""
    found = snapshot(open_lake(lake))
    return {
        table: sorted(
            repr(row) for part in parts for row in read_part(found.lake, part, table_schema(table).names).to_pylist()
        )
        for table, parts in found.parts.items()
        if table not in DERIVED_TABLES
    }


def keys_of(lake: str, table: str) -> list[str]:
    """Keys of the parts of a table that readers see."""
    return [part.key for part in snapshot(open_lake(lake)).parts[table]]


def ask(lake: str, query: str) -> list[tuple]:
    """Open a lake for one question."""
    with connect(lake) as connection:
        return connection.execute(query).fetchall()
