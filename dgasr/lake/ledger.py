"""What the lake holds already, read without DuckDB: recordings of a recipe, objects that were seen, evaluations."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pyarrow as pa

from dgasr.lake.location import open_lake
from dgasr.lake.rows import Row
from dgasr.lake.schema import table_schema
from dgasr.lake.table import READ_THREADS, active_files, open_table, read_file


def committed_recordings(lake_uri: str, recipe_id: str) -> set[bytes]:
    """List the recordings that readers see for a recipe, rejected ones too.

    Args:
        lake_uri: the lake; nothing need lie there yet.
        recipe_id: the recipe.

    Returns:
        Recording ids as 16 bytes each: a million of them fit into 100 MB.

    Raises:
        IntegrityError: the lake cannot be read.
        TransientError: the store does not answer.
    """
    tables = _read(lake_uri, "transcripts", ("recording_id",), recipe_id=recipe_id, row_kind="recording")
    return {bytes.fromhex(value) for table in tables for value in table["recording_id"].to_pylist()}


def held_rows(lake_uri: str, recipe_id: str, columns: Sequence[str]) -> pa.Table:
    """Read what the lake says of the recordings it holds for a recipe, in the order of their ids; raises as above.

    Args:
        lake_uri: the lake; nothing need lie there yet.
        recipe_id: the recipe.
        columns: columns of `recordings` that are wanted; `recording_id` is one of them.
    """
    tables = _read(lake_uri, "transcripts", columns, recipe_id=recipe_id, row_kind="recording")
    return pa.concat_tables([_empty("transcripts", columns), *tables]).sort_by("recording_id")


def known_rows(lake_uri: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Read some columns of the recordings of all recipes, file by file; a recording may come several times."""
    yield from _read(lake_uri, "transcripts", columns, row_kind="recording")


def absent_uris(lake_uri: str) -> set[str]:
    """List the objects that were last noticed to be gone; raises as `committed_recordings` does."""
    columns = ("uri", "event", "noticed_at")
    events = pa.concat_tables([_empty("presence", columns), *_read(lake_uri, "presence", columns)])
    events = events.sort_by("noticed_at")
    last = dict(zip(events["uri"].to_pylist(), events["event"].to_pylist(), strict=True))
    return {uri for uri, event in last.items() if event == "deleted"}


def evaluations_of(lake_uri: str, manifest_digest: str) -> list[Row]:
    """Read all evaluations on a manifest, the oldest first; raises as `committed_recordings` does.

    Args:
        lake_uri: the lake; nothing need lie there yet.
        manifest_digest: hash of the manifest's bytes, hex.
    """
    columns = table_schema("evaluations").names
    rows = pa.concat_tables([_empty("evaluations", columns), *_read(lake_uri, "evaluations", columns)])
    return [row for row in rows.sort_by("started_at").to_pylist() if row["manifest_digest"] == manifest_digest]


def _read(lake_uri: str, name: str, columns: Sequence[str], **partition: str) -> Iterator[pa.Table]:
    """Read some columns of a table, file by file."""
    lake = open_lake(lake_uri)
    files = active_files(open_table(lake, name), name, **partition)
    with ThreadPoolExecutor(READ_THREADS) as pool:
        yield from pool.map(partial(read_file, lake, columns=columns), files)


def _empty(name: str, columns: Sequence[str]) -> pa.Table:
    """Return no row of some columns."""
    return pa.schema([pa.field(column, table_schema(name).field(column).type) for column in columns]).empty_table()
