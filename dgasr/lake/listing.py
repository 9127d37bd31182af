"""A lake in, the files that readers see now out, for tools that read Parquet and know no dgasr."""

from dgasr.errors import ConfigError
from dgasr.lake.location import open_existing_lake
from dgasr.lake.schema import TABLES
from dgasr.lake.snapshot import snapshot


def part_uris(lake_uri: str, table: str = "segments") -> list[str]:
    """List the files that hold a table's rows now, each row in one of them.

    A folder as a whole is not that: from a compaction to the vacuum after it the merged rows lie there twice, and what
    was never committed may lie there too. The partition columns stand in the paths, as `recipe_id=…/date=…`. Of a
    recording that was transcribed again the files have every take, as the tables of parts do under the views.

    Args:
        lake_uri: a folder or `s3://` prefix.
        table: name of a table of `dgasr.lake.schema`.

    Returns:
        Absolute paths, or `s3://` URIs, sorted. They stay readable for the grace period of `dgasr lake vacuum`.

    Raises:
        ConfigError: no lake lies there, or there is no such table.
        IntegrityError: commits and parts contradict each other.
        TransientError: the store does not answer.
    """
    if table not in TABLES:
        raise ConfigError(f"{table}: is no table of a lake. Name one of {', '.join(TABLES)}.")
    found = snapshot(open_existing_lake(lake_uri), (table,))
    return sorted(f"{found.lake.uri}/{part.key}" for part in found.parts[table])
