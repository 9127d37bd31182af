"""Rows into Delta tables: a shard becomes visible whole, once, whoever runs twice, races or is killed.

Why a commit cannot be lost or doubled: docs/decisions/0021-delta-lake.md
"""

import random
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date
from functools import lru_cache, partial

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError

from dgasr.errors import ConfigError, TransientError
from dgasr.lake.location import Lake, open_lake
from dgasr.lake.rows import Row, ShardRows
from dgasr.lake.rules import check_shard
from dgasr.lake.schema import ROW_KINDS
from dgasr.lake.table import (
    READ_THREADS,
    File,
    active_files,
    create_table,
    delta_errors,
    open_table,
    read_file,
    to_arrow,
)
from dgasr.records import Shard

MAX_ATTEMPTS = 100
"""Times that a commit is tried while others commit first; 19 was the most that was measured (docs/experiments.md)."""

MAX_FAILURES = 5
"""Times that the store may fail in a commit; what it reads it asks for again by itself."""

LONGEST_PAUSE_S = 1.0
"""Between two attempts, s; the first pauses are shorter."""

SAFE_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
"""What recipe, shard and run ids may consist of, so that they can stand in a key and in a predicate."""

WRITING = WriterProperties(compression="ZSTD", compression_level=3)

OWNER_COLUMNS = ("recording_id", "take", "shard_id", "run_id", "transcribed_at")
"""What says which of two sets of rows of a recording counts, and whose they are."""


def commit_shard(lake_uri: str, rows: ShardRows) -> ShardRows:
    """Make a shard's rows visible, all at once, but for recordings that the lake holds already.

    Args:
        lake_uri: the lake; nothing need lie there yet.
        rows: everything the shard yields.

    Returns:
        The rows that readers see now because of this call, or of an earlier one with the same rows; none where all of
        these recordings were there before.

    Raises:
        ConfigError: the lake cannot be written.
        IntegrityError: the rows break an invariant; nothing was written.
        TransientError: storage failed, or others committed all the time; the same call may be made again.
    """
    safe_ids(recipe_id=rows.recipe_id, shard_id=rows.shard_id)
    written = commit_transcripts(lake_uri, rows.recipe_id, shard_table(rows))
    return ShardRows(
        recipe_id=rows.recipe_id,
        shard_id=rows.shard_id,
        run_id=rows.run_id,
        recordings=[row for row in rows.recordings if row["recording_id"] in written],
        segments=[row for row in rows.segments if row["recording_id"] in written],
    )


def commit_transcripts(lake_uri: str, recipe_id: str, data: pa.Table) -> set[str]:
    """Commit rows of `transcripts` without a look at what they say; otherwise as `commit_shard`.

    A recording is held where its rows of the same recipe have this take or a higher one; rows of a lower take are
    replaced, wherever they lie.

    Args:
        lake_uri: the lake; nothing need lie there yet.
        recipe_id: the recipe of all rows.
        data: complete recordings, in the order in which they are to be stored.

    Returns:
        Ids of the recordings that readers see with these rows.
    """
    lake, kinds = open_lake(lake_uri), pc.equal(data["row_kind"], "recording")
    rows = {row["recording_id"]: row for row in data.filter(kinds).select(OWNER_COLUMNS).to_pylist()}
    safe_ids(**{f"recording_id of row {number}": recording_id for number, recording_id in enumerate(rows)})
    failures: list[TransientError] = []
    for table in _attempts(lake, "transcripts"):
        held = _held(lake, table, recipe_id, set(rows))
        fresh = {recording_id for recording_id, row in rows.items() if _take(held.get(recording_id)) < _take(row)}
        mine = {recording_id for recording_id, row in rows.items() if held.get(recording_id) == row}
        if not fresh:
            return mine
        with _or_again(f"{lake_uri}/transcripts", failures):
            _write(table, data, recipe_id, sorted(fresh), is_replacing=not fresh.isdisjoint(held))
            return fresh | mine
    raise TransientError(f"{lake_uri}: others commit all the time; this shard was tried {MAX_ATTEMPTS} times.")


def committed_shards(lake_uri: str, recipe_id: str, shards: Iterable[Shard]) -> set[str]:
    """Return the ids of those shards of which the lake holds every recording, at the shard's take or a higher one.

    Raises:
        IntegrityError: the lake cannot be read.
        TransientError: the store does not answer.
    """
    shards, lake = list(shards), open_lake(lake_uri)
    ids = {recording.recording_id for shard in shards for recording in shard.recordings}
    held = _held(lake, open_table(lake, "transcripts"), recipe_id, ids)
    return {
        shard.shard_id
        for shard in shards
        if all(_take(held.get(recording.recording_id)) >= shard.take for recording in shard.recordings)
    }


def append_rows(lake_uri: str, name: str, rows: Sequence[Row]) -> bool:
    """Add rows that executions write to `runs`, `evaluations` or `presence`, all at once.

    Args:
        lake_uri: the lake; nothing need lie there yet.
        name: the table.
        rows: all rows of the `run_id`s that they have.

    Returns:
        False where nothing was added: each execution's rows lie there already, or there are none.

    Raises:
        ConfigError: the lake cannot be written.
        IntegrityError: a value does not fit its column.
        TransientError: storage failed; the same call may be made again.
    """
    at = "noticed_at" if name == "presence" else "started_at"
    data = to_arrow(name, [row | {"date": row[at].astimezone(UTC).date()} for row in rows])
    lake, run_ids = open_lake(lake_uri), {row["run_id"] for row in rows}
    safe_ids(**{f"run_id {run_id}": run_id for run_id in run_ids})
    failures: list[TransientError] = []
    for table in _attempts(lake, name) if rows else ():
        fresh = sorted(run_id for run_id in run_ids if table.transaction_version(run_id) is None)
        if not fresh:
            return False
        with _or_again(f"{lake_uri}/{name}", failures):
            write_deltalake(
                table,
                data.filter(pc.is_in(data["run_id"], value_set=pa.array(fresh, pa.string()))),
                mode="append",
                schema_mode="merge",
                writer_properties=WRITING,
                commit_properties=CommitProperties(app_transactions=[Transaction(run_id, 1) for run_id in fresh]),
            )
            return True
    if rows:
        raise TransientError(f"{lake_uri}: others commit all the time; {name} was tried {MAX_ATTEMPTS} times.")
    return False


def write_run(lake_uri: str, row: Row) -> bool:
    """Write the row of an execution; returns False where one of this `run_id` lies already."""
    return append_rows(lake_uri, "runs", [row])


def write_evaluation(lake_uri: str, row: Row) -> bool:
    """Write the row of an evaluation; returns False where one of this `run_id` lies already."""
    return append_rows(lake_uri, "evaluations", [row])


def write_presence(lake_uri: str, rows: Sequence[Row]) -> bool:
    """Write what one run noticed of objects that are gone or back; returns False where there is nothing new."""
    return append_rows(lake_uri, "presence", rows)


def shard_table(rows: ShardRows) -> pa.Table:
    """Turn a shard's rows into rows of `transcripts`, in the order in which they are stored.

    Raises:
        IntegrityError: they break an invariant of the lake.
    """
    dates = {row["recording_id"]: row["modified_at"].astimezone(UTC).date() for row in rows.recordings}
    views = {"recordings": rows.recordings, "segments": rows.segments}
    added = {
        view: [
            row | {"recipe_id": rows.recipe_id, "date": dates.get(row["recording_id"], date.min)} for row in view_rows
        ]
        for view, view_rows in views.items()
    }
    check_shard(rows.shard_id, {view: to_arrow(view, view_rows) for view, view_rows in added.items()})
    together = [row | {"row_kind": ROW_KINDS[view]} for view, view_rows in added.items() for row in view_rows]
    order = [(name, "ascending") for name in ("row_kind", "recording_id", "segment_index")]
    return to_arrow("transcripts", together).sort_by(order)


def safe_ids(**ids: str) -> None:
    """Refuse ids that cannot stand in a path or a predicate; raises `ConfigError`."""
    for name, value in ids.items():
        if not SAFE_ID.fullmatch(value):
            raise ConfigError(f"{name} {value!r} cannot stand in a key: use letters, digits, '_' and '-' only.")


def _attempts(lake: Lake, name: str) -> Iterator[DeltaTable]:
    """Yield a table as it is now, again after each conflict, with pauses that spread the writers."""
    for attempt in range(MAX_ATTEMPTS):
        yield open_table(lake, name) or create_table(lake, name)
        time.sleep(random.uniform(0, min(LONGEST_PAUSE_S, 0.02 * 2 ** min(attempt, 10))))


@contextmanager
def _or_again(where: str, failures: list[TransientError]) -> Iterator[None]:
    """Let a conflict pass, so that the next attempt is made, and a few failures of the store.

    Whoever looks again sees whether a commit is there whose answer was lost.
    """
    try:
        with delta_errors(where):
            yield
    except CommitFailedError:
        return
    except TransientError as error:
        failures.append(error)
        if len(failures) > MAX_FAILURES:
            raise


def _write(table: DeltaTable, data: pa.Table, recipe_id: str, fresh: Sequence[str], *, is_replacing: bool) -> None:
    """Commit the rows of some recordings, in place of what lies there of them.

    Every writer of a recipe bears the recipe's name as transaction: of two that looked at the same version of the table
    the second one fails, and looks again. Only so is what was looked up before the commit still true in it.
    """
    rows = data.filter(pc.is_in(data["recording_id"], value_set=pa.array(fresh, pa.string())))
    properties = CommitProperties(app_transactions=[Transaction(recipe_id, table.version() + 1)])
    if not is_replacing:
        write_deltalake(
            table, rows, mode="append", schema_mode="merge", writer_properties=WRITING, commit_properties=properties
        )
        return
    names = ", ".join(f"'{recording_id}'" for recording_id in fresh)
    write_deltalake(
        table,
        rows,
        mode="overwrite",
        predicate=f"recipe_id = '{recipe_id}' and recording_id in ({names})",
        schema_mode="merge",
        writer_properties=WRITING,
        commit_properties=properties,
    )


def _held(lake: Lake, table: DeltaTable | None, recipe_id: str, ids: set[str]) -> dict[str, Row]:
    """Read whose rows readers see of some recordings, by recording; of several the highest take."""
    held: dict[str, Row] = {}
    wanted = pa.array(sorted(ids), pa.string())
    files = active_files(table, "transcripts", recipe_id=recipe_id, row_kind="recording")
    with ThreadPoolExecutor(READ_THREADS) as pool:
        for found in pool.map(partial(_owners, lake), files):
            for row in found.filter(pc.is_in(found["recording_id"], value_set=wanted)).to_pylist():
                if _take(held.get(row["recording_id"])) < _take(row):
                    held[row["recording_id"]] = row
    return held


@lru_cache(maxsize=4096)
def _owners(lake: Lake, file: File) -> pa.Table:
    """Read the recordings of a file. Files never change, and a process that commits shards asks for each of them."""
    return read_file(lake, file, OWNER_COLUMNS)


def _take(row: Row | None) -> int:
    """Return how often a recording was asked for again; -1 where it is not there, 0 where nobody counted."""
    return -1 if row is None else row["take"] or 0
