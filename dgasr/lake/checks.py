"""What must hold of a shard's rows before any of them is written. Rows in, nothing or an `IntegrityError` out."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, date
from itertools import pairwise
from typing import Any, NoReturn, get_args

from dgasr.errors import IntegrityError, Reason
from dgasr.lake.rows import Row, ShardRows
from dgasr.lake.schema import STATUSES, TABLES
from dgasr.records import SAMPLE_RATE_HZ, CutKind, SegmentKind, TimingSource

ENUMERATIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "recordings": {"status": STATUSES, "reason": tuple(Reason)},
    "segments": {"kind": get_args(SegmentKind), "cut": get_args(CutKind), "timing_source": get_args(TimingSource)},
}
"""Columns that hold one of a few values, by table."""


def check_shard(rows: ShardRows) -> None:
    """Refuse rows that break an invariant of the lake.

    Args:
        rows: a shard about to be committed.

    Raises:
        IntegrityError: the first row that contradicts another, the schema or itself, by name.
    """
    where = f"shard {rows.shard_id}"
    for table, table_rows in (("recordings", rows.recordings), ("segments", rows.segments)):
        for row in table_rows:
            _check_values(row, table, where)
    _check_recordings(rows, where)
    by_recording: dict[str, list[Row]] = defaultdict(list)
    for segment in rows.segments:
        _check_words(segment, where)
        by_recording[segment["recording_id"]].append(segment)
    for recording in rows.recordings:
        _check_cover(recording, by_recording.pop(recording["recording_id"], []), where)
    for stranger in by_recording:
        _refuse(where, f"segments of recording {stranger}, which is not in the shard")


def partition_date(recordings: Iterable[Row]) -> date:
    """Return the UTC date that all these recordings were modified on, the `date` partition they lie in.

    Raises:
        IntegrityError: no recording, or several dates.
    """
    dates = sorted({row["modified_at"].astimezone(UTC).date() for row in recordings})
    if len(dates) != 1:
        found = ", ".join(str(day) for day in dates) or "no recording at all"
        raise IntegrityError(
            f"A shard lies in one date partition, but this one holds {found}. "
            "Plan shards from recordings of one UTC date of modified_at."
        )
    return dates[0]


def _refuse(where: str, what: str) -> NoReturn:
    """Raise with the sentence that all refusals share."""
    raise IntegrityError(f"{where}: {what}. Nothing was written; this is a fault of the program that made the rows.")


def _samples(time_s: float) -> int:
    """Return the sample position that a time in the lake was made from, exactly."""
    return round(time_s * SAMPLE_RATE_HZ)


def _check_values(row: Row, table: str, where: str) -> None:
    """Refuse unknown, missing and null columns, and values outside an enumeration."""
    schema = TABLES[table]
    if difference := set(row) ^ set(schema.names):
        _refuse(where, f"{table} row with missing or unknown columns {sorted(difference)}")
    for field in schema:
        if row[field.name] is None and not field.nullable:
            _refuse(where, f"{table}.{field.name} is null")
    for column, allowed in ENUMERATIONS[table].items():
        if row[column] is not None and row[column] not in allowed:
            _refuse(where, f"{table}.{column} is {row[column]!r}, not one of {', '.join(allowed)}")


def _check_recordings(rows: ShardRows, where: str) -> None:
    """Refuse doubled recordings, rows of another shard, and a status without its reason."""
    most_common = Counter(row["recording_id"] for row in rows.recordings).most_common(1)
    if most_common and most_common[0][1] > 1:
        _refuse(where, f"recording {most_common[0][0]} stands in it {most_common[0][1]} times")
    for row in (*rows.recordings, *rows.segments):
        if row["shard_id"] != rows.shard_id:
            _refuse(where, f"a row of shard {row['shard_id']} (recording {row['recording_id']})")
    for row in rows.recordings:
        if (row["status"] == "ok") != (row["reason"] is None and row["message"] is None):
            _refuse(where, f"{row['uri']} is {row['status']} with reason {row['reason']}, message {row['message']!r}")


def _check_cover(recording: Row, segments: Sequence[Row], where: str) -> None:
    """Refuse segments that do not cover the decoded audio exactly."""
    uri, decoded = recording["uri"], _samples(recording["decoded_s"])
    if len(segments) != recording["num_segments"]:
        _refuse(where, f"{uri} has {len(segments)} segments and says num_segments={recording['num_segments']}")
    if recording["num_words"] != sum(len(row["words"]) for row in segments):
        _refuse(where, f"{uri} says num_words={recording['num_words']}, and its segments hold others")
    if recording["status"] == "rejected" and (segments or decoded):
        _refuse(where, f"{uri} is rejected, but {len(segments)} segments or {recording['decoded_s']} s are kept of it")
    indices = sorted(row["segment_index"] for row in segments)
    if indices != list(range(len(segments))):
        _refuse(where, f"{uri} has segment_index {indices[:8]}…, which is not 0, 1, 2, …")
    _check_edges(segments, decoded, uri, where)
    if _samples(recording["speech_s"]) + _samples(recording["dropped_s"]) != decoded:
        _refuse(where, f"{uri}: speech_s + dropped_s is not decoded_s")


def _check_edges(segments: Sequence[Row], decoded: int, uri: str, where: str) -> None:
    """Refuse gaps, overlaps, empty segments and a wrong end. `decoded` in samples."""
    ordered = sorted(segments, key=lambda row: row["segment_index"])
    edges = [0, *(_samples(row["end_s"]) for row in ordered)]
    starts = [*(_samples(row["start_s"]) for row in ordered), decoded]
    for edge, start in zip(edges, starts, strict=True):
        if edge != start:
            _refuse(where, f"{uri}: a segment ends at sample {edge}, and the next (or the end) is at {start}")
    if any(end <= start for start, end in pairwise(edges)):
        _refuse(where, f"{uri} has a segment without samples")


def _check_words(segment: Row, where: str) -> None:
    """Refuse words outside their segment, out of order, or with a confidence that is no probability."""
    name = f"segment {segment['segment_index']} of {segment['recording_id']}"
    last = segment["start_s"]
    for word in segment["words"]:
        if not last <= word["start_s"] <= word["end_s"] <= segment["end_s"]:
            _refuse(where, f"{name}: {word['word']!r} is out of order or outside: {word['start_s']} s")
        last = word["end_s"]
    confidences: list[Any] = [segment["confidence"], *(word["confidence"] for word in segment["words"])]
    if any(value is not None and not 0 <= value <= 1 for value in confidences):
        _refuse(where, f"{name}: a confidence outside [0, 1]")
