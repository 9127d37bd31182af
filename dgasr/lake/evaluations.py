"""What recipes scored on a manifest: a lake in, rows of `evaluations` out. Scores nothing."""

import pyarrow as pa

from dgasr.lake.datasets import read_part
from dgasr.lake.location import open_lake
from dgasr.lake.rows import Row
from dgasr.lake.schema import table_schema
from dgasr.lake.snapshot import snapshot


def evaluations_of(lake_uri: str, manifest_digest: str) -> list[Row]:
    """Read all evaluations on a manifest, the oldest first.

    Args:
        lake_uri: the lake; nothing need lie there yet.
        manifest_digest: hash of the manifest's bytes, hex.

    Raises:
        IntegrityError: a part cannot be read.
        TransientError: the store does not answer.
    """
    found = snapshot(open_lake(lake_uri), ("evaluations",))
    schema = table_schema("evaluations")
    tables = [read_part(found.lake, part, schema.names) for part in found.parts["evaluations"]]
    rows = pa.concat_tables([schema.empty_table(), *tables]).sort_by("started_at").to_pylist()
    return [row for row in rows if row["manifest_digest"] == manifest_digest]
