"""Rows in, the bytes of a Parquet file out. Decides how a part is laid out for readers; knows no key and no commit."""

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from dgasr.errors import IntegrityError
from dgasr.lake.rows import Row
from dgasr.lake.schema import DERIVED_TABLES, TABLES

ORDER: dict[str, tuple[str, ...]] = {
    "recordings": ("uri", "recording_id", "shard_id"),
    "segments": ("recording_id", "segment_index", "shard_id"),
    "runs": ("started_at", "run_id"),
    "evaluations": ("started_at", "run_id"),
    "presence": ("uri", "noticed_at"),
    "postings": ("term", "recording_id", "segment_index", "shard_id"),
}
"""Columns that the rows of a merged part are sorted by, so that statistics of row groups answer for a folder of an
archive, or for one recording."""

ROW_GROUP_ROWS = {"recordings": 65_536, "segments": 16_384, "postings": 16_384}
"""Rows that a reader who is sure of one of them fetches together: about 5 MB of the first two, 100 kB of postings."""

ENUMERATED = (
    "shard_id", "run_id", "recipe_id", "status", "reason", "container", "codec", "source_sample_rate_hz",
    "num_channels", "language", "take", "channel", "kind", "cut", "words.list.element.word", "timing_source",
    "flags.list.element", "num_steps", "canvas_tokens",
)  # fmt: skip
"""Columns with few values, kept as a dictionary; in others a dictionary is tried, outgrown and thrown away."""

BLOOM_FILTERED = {"recordings": ("recording_id", "uri"), "segments": ("recording_id",), "postings": ("term",)}
"""Columns whose values are asked for one by one and are spread over all parts."""

FALSE_POSITIVES = 0.01
"""Of a Bloom filter: a row group in a hundred is read in vain, for 10 bits a value."""

MERGED_LEVEL = 9
"""Of zstd, for parts that are written once and read for years: 5 % smaller than level 3, three times as slow."""


def encode_rows(table: str, rows: Sequence[Row]) -> bytes:
    """Encode the few rows of one shard or run, in the order they come in.

    Raises:
        IntegrityError: a value does not fit its column.
    """
    buffer = io.BytesIO()
    try:
        found = pa.Table.from_pylist(list(rows), schema=TABLES[table])
        pq.write_table(found, buffer, compression="zstd", write_page_checksum=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError) as error:
        raise IntegrityError(f"{table}: a value does not fit its column ({error}). Nothing was written.") from error
    return buffer.getvalue()


def encode_merged(table: str, rows: pa.Table) -> bytes:
    """Encode the rows of several parts, or what was made of them, as one, sorted, so that a reader can skip most of it.

    Args:
        table: name of the table.
        rows: its columns, without those that stand in the path.
    """
    buffer, order = io.BytesIO(), ORDER[table]
    rows = rows.replace_schema_metadata(TABLES[table].metadata)
    names = {name.partition(".")[0] for name in rows.schema.names}
    pq.write_table(
        rows.sort_by([(name, "ascending") for name in order]),
        buffer,
        row_group_size=ROW_GROUP_ROWS.get(table, 65_536),
        compression="zstd",
        compression_level=MERGED_LEVEL,
        use_dictionary=table in DERIVED_TABLES or [name for name in ENUMERATED if name.partition(".")[0] in names],
        sorting_columns=[pq.SortingColumn(rows.schema.get_field_index(name)) for name in order],
        bloom_filter_options={
            name: {"ndv": _num_distinct(rows, table, name), "fpp": FALSE_POSITIVES}
            for name in BLOOM_FILTERED.get(table, ())
        },
        write_page_checksum=True,
        write_page_index=True,
    )
    return buffer.getvalue()


def _num_distinct(rows: pa.Table, table: str, name: str) -> int:
    """Return how many values a Bloom filter of one row group must hold."""
    return max(1, min(len(rows[name].unique()), ROW_GROUP_ROWS[table]))
