"""A whole lake inspected: its files first, then the rows of those that are sound."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import duckdb

from dgasr.lake.commits import Part
from dgasr.lake.datasets import dataset_of
from dgasr.lake.garbage import take_inventory
from dgasr.lake.inspection.files import check_leftovers, check_parts, partition_of, read_all_commits, visible_parts
from dgasr.lake.inspection.findings import RESTORE, Finding, Inspection, finding, sorted_findings
from dgasr.lake.inspection.postings import check_postings
from dgasr.lake.inspection.rows import check_identities, check_rows
from dgasr.lake.location import Lake, open_existing_lake
from dgasr.lake.schema import DERIVED_TABLES
from dgasr.lake.views import open_duckdb

KEPT = timedelta(days=2)
"""How long what a process leaves may be somebody's present work, and is not worth a note."""

NAMES = {"recordings": "recording_parts", "segments": "segment_parts", "runs": "runs", "presence": "presence"}
"""Tables that rules are about, by the name they have in them."""


def check_lake(lake_uri: str, *, is_deep: bool) -> Inspection:
    """Look for everything that must not be in a lake. Changes nothing; runs may go on meanwhile.

    Args:
        lake_uri: the lake.
        is_deep: read all bytes, compare their digests, and make each recording's id again; otherwise footers, and the
            columns that rules are about.

    Returns:
        What was found, faults first.

    Raises:
        ConfigError: no lake lies there.
        IntegrityError: the manifest that readers follow cannot be read, so that nothing else can be judged.
        TransientError: the store does not answer.
    """
    lake = open_existing_lake(lake_uri)
    found = take_inventory(lake, datetime.now(UTC), KEPT)
    commits, findings = read_all_commits(found, is_deep)
    visible = visible_parts(found, commits)
    parts = [part for part in visible if part.table not in DERIVED_TABLES]
    sound, wrong = check_parts(found, parts, is_deep)
    is_whole = not findings and len(sound) == len(parts)
    derived = [part for part in visible if part.table in DERIVED_TABLES]
    findings += [*wrong, *check_postings(found, derived, sound, is_deep), *check_leftovers(found)]
    # What a lost file leaves without its other half would be reported as well, row by row.
    damaged = {partition_of(part.key) for part in set(parts) - set(sound)}
    counts = [0, 0]
    with _questions(lake, [part for part in sound if partition_of(part.key) not in damaged]) as connection:
        try:
            counts = [_count(connection, NAMES[table]) for table in ("recordings", "segments")]
            findings += check_rows(connection, lake.uri, is_whole=is_whole)
            if is_deep:
                members = [
                    commit
                    for commit in commits.values()
                    if f"recipe_id={commit.recipe_id}/date={commit.date}" not in damaged
                ]
                findings += check_identities(connection, lake.uri, members)
        except duckdb.Error as error:
            findings.append(_unreadable_rows(lake, error, is_deep))
    return Inspection(
        findings=sorted_findings(findings),
        num_files=len(found.files),
        num_recordings=counts[0],
        num_segments=counts[1],
        is_deep=is_deep,
    )


@contextmanager
def _questions(lake: Lake, parts: list[Part]) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a connection with the rows of some parts."""
    by_table: dict[str, list[Part]] = defaultdict(list)
    for part in parts:
        by_table[part.table].append(part)
    with open_duckdb() as opened:
        opened.execute("set TimeZone = 'UTC'")
        for table, name in NAMES.items():
            opened.register(name, dataset_of(lake, table, by_table[table]))
        yield opened


def _count(connection: duckdb.DuckDBPyConnection, name: str) -> int:
    """Count the rows of a table."""
    return int(connection.execute(f"select count(*) from {name}").fetchall()[0][0])


def _unreadable_rows(lake: Lake, error: duckdb.Error, is_deep: bool) -> Finding:
    """Say that a part whose footer is sound has rows that cannot be read."""
    advice = RESTORE if is_deep else "`dgasr lake check --deep` says which file it is, and what to do"
    return finding("fault", "rows_unreadable", lake.uri, f"rows cannot be read ({str(error).strip()})", advice, "")
