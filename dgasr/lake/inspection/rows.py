"""The rows of a lake's sound parts against the invariants. Runs queries; knows neither commits nor manifests."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator

import duckdb

from dgasr.lake.commits import Commit
from dgasr.lake.inspection.findings import REDO, RESTORE, Finding, finding
from dgasr.lake.inspection.invariants import INVARIANTS, ROWS_LOST, TABLES, Invariant

EXAMPLES = 5
"""Findings of one kind that are written out; one more says how many there are."""


def check_rows(connection: duckdb.DuckDBPyConnection, lake_uri: str, *, is_whole: bool) -> Iterator[Finding]:
    """Yield what breaks an invariant.

    Args:
        connection: has `recording_parts`, `segment_parts`, `runs` and `presence`.
        lake_uri: the lake, for messages.
        is_whole: these are all the rows; where files are damaged, it is no news that rows are lost.
    """
    connection.execute(TABLES)
    for invariant in INVARIANTS:
        if is_whole or invariant.kind != ROWS_LOST:
            yield from _check(connection, invariant, lake_uri)


def check_identities(
    connection: duckdb.DuckDBPyConnection, lake_uri: str, commits: Iterable[Commit]
) -> Iterator[Finding]:
    """Yield recordings whose id is not that of their object, and shards whose recordings are not the committed ones.

    Args:
        connection: as for `check_rows`.
        lake_uri: the lake, for messages.
        commits: commits of all shards.
    """
    members: dict[tuple[str, str], list[str]] = defaultdict(list)
    cursor = connection.execute(
        'select recipe_id, shard_id, recording_id, uri, etag, "date"::varchar from recording_parts'
    )
    while rows := cursor.fetchmany(10_000):
        for recipe_id, shard_id, recording_id, uri, etag, date in rows:
            members[recipe_id, shard_id].append(recording_id)
            key = f"{uri}\0{etag}".encode("utf-8", "surrogateescape")
            if hashlib.blake2b(key, digest_size=16).hexdigest() != recording_id:
                what = f"has recording_id {recording_id}, which is not that of its uri and etag"
                yield finding("fault", "identity", uri, what, REDO, _partition(recipe_id, date))
    for commit in commits:
        ids = "\n".join(sorted(members.get((commit.recipe_id, commit.shard_id), [])))
        if hashlib.blake2b(ids.encode(), digest_size=16).hexdigest() != commit.recordings_digest:
            place, what = f"{lake_uri}: shard {commit.shard_id}", "holds other recordings than were committed"
            yield finding("fault", "shard_members", place, what, RESTORE, _partition(commit.recipe_id, commit.date))


def _check(connection: duckdb.DuckDBPyConnection, invariant: Invariant, lake_uri: str) -> Iterator[Finding]:
    """Yield examples of what breaks one rule, and how many there are."""
    query = f"""
        select count(*) over (), place, what, recipe_id, "date"::varchar from ({invariant.query})
        order by recipe_id, "date", place, what limit {EXAMPLES}
    """
    found = connection.execute(query).fetchall()
    for _, place, what, recipe_id, date in found:
        partition = _partition(recipe_id, date)
        yield finding(invariant.severity, invariant.kind, place, what, invariant.advice, partition)
    if found and found[0][0] > EXAMPLES:
        what = f"{found[0][0] - EXAMPLES} more like the {EXAMPLES} that are named"
        yield finding(invariant.severity, invariant.kind, lake_uri, what, invariant.advice, "")


def _partition(recipe_id: str, date: str) -> str:
    """Name a partition as `dgasr lake forget` takes it."""
    return f"recipe_id={recipe_id}/date={date}"
