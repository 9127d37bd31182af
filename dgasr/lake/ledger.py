"""What the lake already holds for a recipe: a recipe in, recording ids or rows out. Knows no source and no plan."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from dgasr.errors import ConfigError
from dgasr.lake.commits import READ_THREADS
from dgasr.lake.datasets import read_part
from dgasr.lake.location import open_lake
from dgasr.lake.schema import table_schema
from dgasr.lake.snapshot import Snapshot, snapshot

WINNER = {"recording_id": "ascending", "take": "descending", "transcribed_at": "ascending", "shard_id": "ascending"}
"""The order in which the first of several sets of rows of one recording counts, as in `sql/recordings.sql`."""


def committed_recordings(lake_uri: str, recipe_id: str) -> set[bytes]:
    """List the recordings that readers see for a recipe, rejected ones too.

    Args:
        lake_uri: the lake; nothing need lie there yet.
        recipe_id: the recipe.

    Returns:
        Recording ids as 16 bytes each: a million of them fit into 100 MB.

    Raises:
        ConfigError: the recipe is being removed from the lake.
        IntegrityError: commits and parts contradict each other.
        TransientError: the store does not answer.
    """
    found = _snapshot_of(lake_uri, recipe_id)
    done: set[bytes] = set()
    with ThreadPoolExecutor(READ_THREADS) as pool:
        for table in pool.map(lambda part: read_part(found.lake, part, ["recording_id"]), found.parts["recordings"]):
            done.update(bytes.fromhex(value) for value in table["recording_id"].to_pylist())
    return done


def held_rows(lake_uri: str, recipe_id: str, columns: Sequence[str]) -> pa.Table:
    """Read what the lake says of the recordings it holds for a recipe.

    Args:
        lake_uri: the lake; nothing need lie there yet.
        recipe_id: the recipe.
        columns: columns of `recordings` that are wanted.

    Returns:
        One row for each recording, the one that readers see, in the order of the recordings' ids. `take` is 0 where
        the lake was written before there were takes.

    Raises:
        As `committed_recordings`.
    """
    found = _snapshot_of(lake_uri, recipe_id)
    names = list(dict.fromkeys([*WINNER, *columns]))
    read = partial(read_part, found.lake, columns=names)
    with ThreadPoolExecutor(READ_THREADS) as pool:
        tables = list(pool.map(read, found.parts["recordings"]))
    schema = table_schema("recordings")
    rows = pa.concat_tables([pa.schema([schema.field(name) for name in names]).empty_table(), *tables])
    rows = rows.set_column(names.index("take"), schema.field("take"), pc.fill_null(rows["take"], 0))
    rows = rows.sort_by(list(WINNER.items()))
    ids = rows["recording_id"]
    is_first = pa.array([True]) if len(ids) else pa.array([], pa.bool_())
    if len(ids) > 1:
        is_first = pa.concat_arrays([is_first, pc.not_equal(ids[1:], ids[:-1]).combine_chunks()])
    return rows.filter(is_first).select(list(columns))


def _snapshot_of(lake_uri: str, recipe_id: str) -> Snapshot:
    """Look up the recordings of a recipe."""
    found = snapshot(open_lake(lake_uri), ("recordings",), recipe_id)
    if recipe_id in found.manifest.dropped:
        raise ConfigError(
            f"{lake_uri}: recipe {recipe_id} was superseded, and its rows are being removed. "
            "Finish that with `dgasr lake vacuum --yes`, and run again; or use another lake."
        )
    return found
