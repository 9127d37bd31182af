"""What readers of a lake see, for tests that compare it before and after; no view is needed for that."""

from dgasr.lake.datasets import read_part
from dgasr.lake.location import open_lake
from dgasr.lake.schema import table_schema
from dgasr.lake.snapshot import snapshot


def rows_of(lake: str) -> dict[str, list[str]]:
    """All visible rows of every table, in an order of their own."""
    found = snapshot(open_lake(lake))
    return {
        table: sorted(
            repr(row) for part in parts for row in read_part(found.lake, part, table_schema(table).names).to_pylist()
        )
        for table, parts in found.parts.items()
    }


def keys_of(lake: str, table: str) -> list[str]:
    """Keys of the parts of a table that readers see."""
    return [part.key for part in snapshot(open_lake(lake)).parts[table]]
