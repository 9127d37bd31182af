"""What the lake already holds for a recipe: a recipe in, recording ids out. Knows no source and no plan."""

from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet

from dgasr.errors import IntegrityError
from dgasr.lake.commits import READ_THREADS, check_parts, read_commits
from dgasr.lake.location import Lake, open_lake


def committed_recordings(lake_uri: str, recipe_id: str) -> set[bytes]:
    """List the recordings that readers see for a recipe, rejected ones too.

    Args:
        lake_uri: the lake; nothing need lie there yet.
        recipe_id: the recipe.

    Returns:
        Recording ids as 16 bytes each: a million of them fit into 100 MB.

    Raises:
        IntegrityError: commits and parts contradict each other.
        TransientError: the store does not answer.
    """
    lake = open_lake(lake_uri)
    keys = [part.key for part in check_parts(lake, read_commits(lake, recipe_id), "recordings")]
    done: set[bytes] = set()
    with ThreadPoolExecutor(READ_THREADS) as pool:
        for ids in pool.map(lambda key: _recording_ids(lake, key), keys):
            done.update(ids)
    return done


def _recording_ids(lake: Lake, key: str) -> list[bytes]:
    """Read the recording ids of one part."""
    try:
        table = pyarrow.parquet.read_table(pa.BufferReader(lake.read(key)), columns=["recording_id"])
    except (pa.ArrowInvalid, OSError) as error:
        raise IntegrityError(f"{lake.uri}/{key}: cannot be read ({error}). Restore it from a copy.") from error
    return [bytes.fromhex(value) for value in table["recording_id"].to_pylist()]
