"""Which objects of an archive are gone, by what runs noticed of them: a lake in, URIs out. Knows no source."""

import pyarrow as pa
import pyarrow.parquet

from dgasr.errors import IntegrityError
from dgasr.lake.location import Lake, open_lake


def absent_uris(lake_uri: str) -> set[str]:
    """List the objects that were last noticed to be gone.

    Args:
        lake_uri: the lake; nothing need lie there yet.

    Raises:
        IntegrityError: a part cannot be read.
        TransientError: the store does not answer.
    """
    lake = open_lake(lake_uri)
    tables = [_events(lake, key) for key in lake.list_sizes("presence") if key.endswith(".parquet")]
    if not tables:
        return set()
    events = pa.concat_tables(tables).sort_by("noticed_at")
    last = dict(zip(events["uri"].to_pylist(), events["event"].to_pylist(), strict=True))
    return {uri for uri, event in last.items() if event == "deleted"}


def _events(lake: Lake, key: str) -> pa.Table:
    try:
        source = pa.BufferReader(lake.read(key))
        return pyarrow.parquet.read_table(source, columns=["uri", "event", "noticed_at"])
    except (pa.ArrowInvalid, OSError) as error:
        raise IntegrityError(f"{lake.uri}/{key}: cannot be read ({error}). Restore it from a copy.") from error
