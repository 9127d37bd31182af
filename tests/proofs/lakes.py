"""Two lakes side by side, row for row, and what was said beside what was heard."""

from typing import Any

from dgasr.evaluation.scores import EditCounts, count_edits
from dgasr.lake.views import connect
from tests.proofs.archive import Entry

OWN = {
    "run_id": "names the run",
    "shard_id": "names what was committed together, which follows from what was pending",
    "transcribed_at": "the time",
    "read_s": "how long it took",
}
"""Columns in which two runs over the same archive may differ, and why. All others must be equal."""

KEYS = {"recordings": ("recipe_id", "uri"), "segments": ("recipe_id", "recording_id", "segment_index")}

DOUBLES = """
    select count(*)::bigint - count(distinct (recipe_id, recording_id))::bigint from recordings
"""

TEXTS = """
    select parse_filename(recordings.uri), any_value(recordings.status), any_value(recordings.reason),
        coalesce(string_agg(segments.text, ' ' order by segments.segment_index) filter (segments.text <> ''), '')
    from recordings left join segments using (recipe_id, recording_id)
    where contains(recordings.uri, ?)
    group by recordings.uri
"""

UNCOVERED = """
    with steps as (
        select recording_id, audio_track, channel, start_s, end_s,
            lag(end_s, 1, 0) over (partition by recording_id, audio_track, channel order by start_s) as before_s
        from segments
    ),
    heard as (
        select recording_id, audio_track, channel, max(end_s) as covered_s, max(abs(start_s - before_s)) as hole_s
        from steps group by all
    )
    select parse_filename(uri), decoded_s, num_transcripts, count(channel)::int, min(covered_s), max(hole_s)
    from recordings left join heard using (recording_id) where status <> 'rejected'
    group by all
    having count(channel) <> num_transcripts or min(covered_s) <> decoded_s or max(covered_s) <> decoded_s
        or max(hole_s) <> 0
"""
"""Recordings of which the segments of some channel do not follow each other from zero to the end, to the sample."""

Row = dict[str, Any]


def read_rows(lake_uri: str, table: str) -> dict[tuple[Any, ...], Row]:
    """Read what readers see of a table, by key, without the columns in which runs may differ.

    Raises:
        AssertionError: two rows have one key.
    """
    with connect(lake_uri) as connection:
        cursor = connection.execute(f"select * from {table}")
        names = [column[0] for column in cursor.description]
        rows = cursor.fetchall()
    found = {}
    for values in rows:
        row = dict(zip(names, values, strict=True))
        key = tuple(row[name] for name in KEYS[table])
        assert key not in found, f"{lake_uri}: {table} shows {key} twice"
        found[key] = {name: value for name, value in row.items() if name not in OWN}
    return found


def differences(left_uri: str, right_uri: str) -> list[str]:
    """Compare all rows of two lakes; every difference in a line, none where they are equal."""
    lines = []
    for table in KEYS:
        left, right = read_rows(left_uri, table), read_rows(right_uri, table)
        lines += [f"{table} {key}: only in {left_uri}" for key in left.keys() - right.keys()]
        lines += [f"{table} {key}: only in {right_uri}" for key in right.keys() - left.keys()]
        for key in left.keys() & right.keys():
            names = [name for name, value in left[key].items() if right[key].get(name) != value]
            lines += [f"{table} {key} {name}: {left[key][name]!r} and {right[key].get(name)!r}" for name in names]
    return lines


def count_rows(lake_uri: str) -> dict[str, int]:
    """Count rows that readers see, and those of recordings that are there twice."""
    counts = {table: len(read_rows(lake_uri, table)) for table in KEYS}
    with connect(lake_uri) as connection:
        doubled = connection.execute(DOUBLES).fetchall()[0][0]
    return counts | {"doubled_recordings": doubled}


def check_entries(lake_uri: str, source: str, entries: list[Entry]) -> tuple[EditCounts, list[str]]:
    """Hold a lake against what was put into the archive.

    Returns:
        Word edits over all recordings, and a line for each recording without the row that it should have, or of which
        a channel is not covered exactly.
    """
    with connect(lake_uri) as connection:
        rows = connection.execute(TEXTS, [source]).fetchall()
        uncovered = connection.execute(UNCOVERED).fetchall()
    found = {name: (status, reason, text) for name, status, reason, text in rows}
    edits, lines = EditCounts(), []
    for entry in entries:
        status, reason, text = found.pop(entry.name, ("no row", None, ""))
        edits += count_edits(entry.text.split(), text.split())
        if (status, reason) != (entry.status, entry.reason):
            lines.append(f"{entry.name}: {status} {reason}, expected {entry.status} {entry.reason}")
    lines += [
        f"{name}: {expected} transcripts of {decoded_s} s, {number} covered up to {covered_s} s, holes up to {hole_s} s"
        for name, decoded_s, expected, number, covered_s, hole_s in uncovered
    ]
    return edits, lines + [f"{name}: a row of nothing that was there" for name in found]
