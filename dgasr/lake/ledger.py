"""What the lake already holds for a recipe: recordings in, those still to be done out."""

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet

from dgasr.errors import IntegrityError
from dgasr.lake.commits import check_parts, read_commits
from dgasr.lake.location import open_lake
from dgasr.records import Recording


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
    done: set[bytes] = set()
    for part in check_parts(lake, read_commits(lake, recipe_id), "recordings"):
        try:
            column = pyarrow.parquet.read_table(pa.BufferReader(lake.read(part.key)), columns=["recording_id"])
        except (pa.ArrowInvalid, OSError) as error:
            raise IntegrityError(f"{lake.uri}/{part.key}: cannot be read ({error}). Restore it from a copy.") from error
        done.update(bytes.fromhex(value) for value in column["recording_id"].to_pylist())
    return done


def pending_recordings(recordings: Iterable[Recording], lake_uri: str, recipe_id: str) -> Iterator[Recording]:
    """Leave out the recordings that the lake holds for a recipe; a new ETag makes a new recording.

    Raises:
        IntegrityError: commits and parts contradict each other.
        TransientError: the store does not answer.
    """
    done = committed_recordings(lake_uri, recipe_id)
    return (recording for recording in recordings if bytes.fromhex(recording.recording_id) not in done)
