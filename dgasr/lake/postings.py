"""Segments in, their postings out: which segments hold a word, and where, so that a search need not read the text.

An inverted index (Zobel and Moffat 2006, section 3.1), one part for each part of segments, made by a compaction.
Whoever finds none reads the text, and gives the same answer: docs/decisions/0018-postings.md
"""

import pyarrow as pa

from dgasr.lake.commits import Part, indexed_key
from dgasr.lake.schema import DERIVED_TABLES, TABLES
from dgasr.lake.snapshot import Snapshot
from dgasr.lake.views import open_duckdb, view_statements

SOURCE_COLUMNS = ("recording_id", "shard_id", "segment_index", "text")
"""Columns of segments that postings are made of."""

BATCH_ROWS = 8_192
"""Segments that are taken apart at once: some 100 MB."""

QUERY = """
    select term, recording_id, shard_id, segment_index, list(position order by position) as positions,
        any_value(num_terms) as num_terms
    from (
        select * exclude (spelled), len(spelled) as num_terms, unnest(spelled) as term,
            generate_subscripts(spelled, 1) as position
        from (select recording_id, shard_id, segment_index, terms(text) as spelled from segments)
    )
    group by term, recording_id, shard_id, segment_index
"""
"""What `sql/postings.sql` answers of unindexed parts, for all terms at once."""


def unindexed_parts(found: Snapshot) -> list[Part]:
    """List the parts of segments that the manifest names and readers see, and that no usable postings lie of."""
    indexed = {indexed_key(part.key) for part in found.parts["postings"]}
    noted = {part.key for part in found.manifest.parts}
    return [part for part in found.parts["segments"] if part.key in noted and part.key not in indexed]


def without_stale(parts: list[Part]) -> list[Part]:
    """Leave out postings of parts of segments that are not among the parts."""
    keys = {part.key for part in parts}
    return [part for part in parts if part.table not in DERIVED_TABLES or indexed_key(part.key) in keys]


def postings_of(segments: pa.Table) -> pa.Table:
    """Make the postings of segments, in no order.

    Args:
        segments: rows with `SOURCE_COLUMNS`.

    Returns:
        One row for each term and segment that has it, with the columns of `postings`.
    """
    with open_duckdb() as opened:
        opened.execute(view_statements()["terms"])
        made = [TABLES["postings"].empty_table()]
        for first in range(0, segments.num_rows, BATCH_ROWS):
            opened.register("segments", segments.slice(first, BATCH_ROWS))
            made.append(opened.sql(QUERY).to_arrow_table().cast(TABLES["postings"]))
        return pa.concat_tables(made)
