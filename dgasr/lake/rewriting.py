"""Parts in, their rows out, and rows in, a part out: what a compaction does to each part. Names none in a manifest."""

import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet

from dgasr.errors import IntegrityError
from dgasr.lake.commits import READ_THREADS, Part
from dgasr.lake.datasets import decode_part
from dgasr.lake.encoding import encode_merged
from dgasr.lake.location import Lake
from dgasr.lake.schema import TABLES

logger = logging.getLogger(__name__)


def read_group(lake: Lake, group: Sequence[Part], columns: Sequence[str]) -> tuple[dict[str, pa.Table], dict[str, str]]:
    """Read parts whole.

    Args:
        lake: the lake.
        group: parts of one table.
        columns: names of the columns that are wanted.

    Returns:
        Rows by the part's key, and by key what is wrong with parts that are not what was committed.
    """
    rows, troubles = {}, {}
    with ThreadPoolExecutor(READ_THREADS) as pool:
        for part, reading in [(part, pool.submit(_read_whole, lake, part, columns)) for part in group]:
            try:
                rows[part.key] = reading.result()
            except IntegrityError as error:
                logger.warning("%s", error)
                troubles[part.key] = str(error)
    return rows, troubles


def _read_whole(lake: Lake, part: Part, columns: Sequence[str]) -> pa.Table:
    """Read all rows of a part.

    Raises:
        IntegrityError: it is not what was committed, or has columns that this dgasr would lose.
    """
    data, where = lake.read(part.key), f"{lake.uri}/{part.key}"
    if part.sha256 is not None and hashlib.sha256(data).hexdigest() != part.sha256:
        raise IntegrityError(f"{where}: has other bytes than were committed. Restore it from a copy.")
    rows = decode_part(lake, part, data, columns)
    if part.num_rows is not None and rows.num_rows != part.num_rows:
        raise IntegrityError(f"{where}: has {rows.num_rows} rows, and its commit says {part.num_rows}.")
    schema = pyarrow.parquet.read_schema(pa.BufferReader(data))
    if (schema.metadata or {}).get(b"dgasr.table") != part.table.encode():
        raise IntegrityError(
            f"{where}: is no part of {part.table}. Move it out of the lake if a stranger put it there."
        )
    if unknown := set(schema.names) - set(TABLES[part.table].names):
        raise IntegrityError(f"{where}: has columns {sorted(unknown)}, which a newer dgasr wrote. Upgrade dgasr.")
    return rows


def encode_part(table: str, key: str, rows: pa.Table) -> tuple[Part, bytes]:
    """Make a part of rows, and its bytes."""
    data = encode_merged(table, rows)
    digest = hashlib.sha256(data).hexdigest()
    return Part(table=table, key=key, num_rows=rows.num_rows, size_bytes=len(data), sha256=digest), data
