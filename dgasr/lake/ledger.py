"""What the lake holds already, read without DuckDB: recordings of a recipe, objects that were seen, evaluations.

Nothing need lie in the lake yet. Everything here raises IntegrityError where the lake cannot be read, and
TransientError where the store does not answer.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from dgasr.lake.location import Lake, open_lake
from dgasr.lake.rows import Row
from dgasr.lake.schema import table_schema
from dgasr.lake.table import READ_THREADS, File, active_files, open_table, read_file
from dgasr.records import Shard

ROWS_AT_ONCE = 50_000
"""Rows of the lake that are Python objects at once: bounds the memory that a million of them take."""

OWNER_COLUMNS = ("recording_id", "take", "shard_id", "run_id", "transcribed_at")
"""What says which of two sets of rows of a recording counts, and whose they are."""


def committed_recordings(lake_uri: str, recipe_id: str) -> set[bytes]:
    """List the recordings that readers see for a recipe, rejected ones too: ids of 16 bytes, 100 MB for a million."""
    return {bytes.fromhex(value) for (value,) in recording_rows(lake_uri, ("recording_id",), recipe_id=recipe_id)}


def recording_rows(lake_uri: str, columns: Sequence[str], **partition: str) -> Iterator[tuple[Any, ...]]:
    """Read some columns of the recordings of all recipes, or of a `recipe_id`, in no order.

    A recording comes once for each recipe.
    """
    return _rows(lake_uri, "transcripts", columns, row_kind="recording", **partition)


def absent_uris(lake_uri: str) -> set[str]:
    """List the objects that were last noticed to be gone."""
    events = sorted(_rows(lake_uri, "presence", ("noticed_at", "uri", "event")))
    last = {uri: event for _, uri, event in events}
    return {uri for uri, event in last.items() if event == "deleted"}


def rows_of(lake_uri: str, name: Literal["runs", "evaluations"], **values: str) -> list[Row]:
    """Read all runs (child runs too) or evaluations that have these values in some columns, the oldest first."""
    columns = table_schema(name).names
    rows = (dict(zip(columns, row, strict=True)) for row in _rows(lake_uri, name, columns))
    return sorted((row for row in rows if values.items() <= row.items()), key=lambda row: row["started_at"])


def committed_shards(lake_uri: str, recipe_id: str, shards: Iterable[Shard]) -> set[str]:
    """Return the ids of those shards of which the lake holds every recording, at the shard's take or a higher one."""
    shards, lake = list(shards), open_lake(lake_uri)
    ids = {recording.recording_id for shard in shards for recording in shard.recordings}
    held = held_owners(lake, open_table(lake, "transcripts"), recipe_id, ids)
    return {
        shard.shard_id
        for shard in shards
        if all(take_of(held.get(recording.recording_id)) >= shard.take for recording in shard.recordings)
    }


def held_owners(lake: Lake, table: DeltaTable | None, recipe_id: str, ids: set[str]) -> dict[str, Row]:
    """Read whose rows readers see of some recordings, by recording; of several the highest take."""
    held: dict[str, Row] = {}
    wanted = pa.array(sorted(ids), pa.string())
    files = active_files(table, "transcripts", recipe_id=recipe_id, row_kind="recording")
    with ThreadPoolExecutor(READ_THREADS) as pool:
        for found in pool.map(partial(_owners, lake), files):
            for row in found.filter(pc.is_in(found["recording_id"], value_set=wanted)).to_pylist():
                if take_of(held.get(row["recording_id"])) < take_of(row):
                    held[row["recording_id"]] = row
    return held


@lru_cache(maxsize=4096)
def _owners(lake: Lake, file: File) -> pa.Table:
    """Read the recordings of a file. Files never change, and a process that commits shards asks for each of them."""
    return read_file(lake, file, OWNER_COLUMNS)


def take_of(row: Row | None) -> int:
    """Return how often a recording was asked for again; -1 where it is not there, 0 where nobody counted."""
    return -1 if row is None else row["take"] or 0


def _rows(lake_uri: str, name: str, columns: Sequence[str], **partition: str) -> Iterator[tuple[Any, ...]]:
    """Read some columns of a table; of a million rows only some are Python's at once."""
    lake = open_lake(lake_uri)
    files = active_files(open_table(lake, name), name, **partition)
    with ThreadPoolExecutor(READ_THREADS) as pool:
        for found in pool.map(partial(read_file, lake, columns=columns), files):
            for batch in found.to_batches(max_chunksize=ROWS_AT_ONCE):
                yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
