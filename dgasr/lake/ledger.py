"""What the lake holds already, read without DuckDB; and rows into its Delta tables.

A shard becomes visible whole and once, also under retries, races and kills; why a commit cannot be lost or doubled:
docs/decisions/0021-delta-lake.md. To be read, nothing need lie in the lake yet.

Everything here raises IntegrityError where the lake cannot be read, and TransientError where the store does not answer,
or others committed all the time: it may be called again then. Of what writes, ConfigError says that the lake cannot be
written, and IntegrityError that the rows break a rule or do not fit their columns. Nothing was written then.
"""

import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date
from functools import lru_cache, partial
from typing import Any, Literal, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError

from dgasr.errors import ConfigError, TransientError
from dgasr.lake.location import Lake, open_lake
from dgasr.lake.rows import Row, ShardRows
from dgasr.lake.rules import check_shard
from dgasr.lake.schema import ROW_KINDS, table_schema
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

ROWS_AT_ONCE = 50_000
"""Rows of the lake that are Python objects at once: bounds the memory that a million of them take."""

OWNER_COLUMNS = ("recording_id", "take", "shard_id", "run_id", "transcribed_at")
"""What says which of two sets of rows of a recording counts, and whose they are."""


def committed_recordings(lake_uri: str, recipe_id: str) -> set[bytes]:
    """List the recordings that readers see for a recipe, rejected ones too: ids of 16 bytes, 100 MB for a million."""
    return {bytes.fromhex(value) for (value,) in recording_rows(lake_uri, ("recording_id",), recipe_id=recipe_id)}


def recording_rows(lake_uri: str, columns: Sequence[str], **partition: str) -> Iterator[tuple[Any, ...]]:
    """Read some columns of the recordings of all recipes, or of a `recipe_id`, in no order.

    A recording comes once for each recipe.
    """
    return _rows(lake_uri, "transcripts", columns, row_kind="recording", **partition)


def absent_uris(lake_uri: str) -> set[str]:
    """List the objects that were last noticed to be gone."""
    events = sorted(_rows(lake_uri, "presence", ("noticed_at", "uri", "event")))
    last = {uri: event for _, uri, event in events}
    return {uri for uri, event in last.items() if event == "deleted"}


def rows_of(lake_uri: str, name: Literal["runs", "evaluations"], **values: str) -> list[Row]:
    """Read all runs (child runs too) or evaluations that have these values in some columns, the oldest first."""
    columns = table_schema(name).names
    rows = (dict(zip(columns, row, strict=True)) for row in _rows(lake_uri, name, columns))
    return sorted((row for row in rows if values.items() <= row.items()), key=lambda row: row["started_at"])


def committed_shards(lake_uri: str, recipe_id: str, shards: Iterable[Shard]) -> set[str]:
    """Return the ids of those shards of which the lake holds every recording, at the shard's take or a higher one."""
    shards, lake = list(shards), open_lake(lake_uri)
    ids = {recording.recording_id for shard in shards for recording in shard.recordings}
    held = held_owners(lake, open_table(lake, "transcripts"), recipe_id, ids)
    return {
        shard.shard_id
        for shard in shards
        if all(take_of(held.get(recording.recording_id)) >= shard.take for recording in shard.recordings)
    }


def held_owners(lake: Lake, table: DeltaTable | None, recipe_id: str, ids: set[str]) -> dict[str, Row]:
    """Read whose rows readers see of some recordings, by recording; of several the highest take."""
    held: dict[str, Row] = {}
    wanted = pa.array(sorted(ids), pa.string())
    files = active_files(table, "transcripts", recipe_id=recipe_id, row_kind="recording")
    with ThreadPoolExecutor(READ_THREADS) as pool:
        for found in pool.map(partial(_owners, lake), files):
            for row in found.filter(pc.is_in(found["recording_id"], value_set=wanted)).to_pylist():
                if take_of(held.get(row["recording_id"])) < take_of(row):
                    held[row["recording_id"]] = row
    return held


@lru_cache(maxsize=4096)
def _owners(lake: Lake, file: File) -> pa.Table:
    """Read the recordings of a file. Files never change, and a process that commits shards asks for each of them."""
    return read_file(lake, file, OWNER_COLUMNS)


def take_of(row: Row | None) -> int:
    """Return how often a recording was asked for again; -1 where it is not there, 0 where nobody counted."""
    return -1 if row is None else row["take"] or 0


def _rows(lake_uri: str, name: str, columns: Sequence[str], **partition: str) -> Iterator[tuple[Any, ...]]:
    """Read some columns of a table; of a million rows only some are Python's at once."""
    lake = open_lake(lake_uri)
    files = active_files(open_table(lake, name), name, **partition)
    with ThreadPoolExecutor(READ_THREADS) as pool:
        for found in pool.map(partial(read_file, lake, columns=columns), files):
            for batch in found.to_batches(max_chunksize=ROWS_AT_ONCE):
                yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


Result = TypeVar("Result")

MAX_ATTEMPTS = 100
"""Times that a commit is tried while others commit first; 19 was the most that was measured (docs/experiments.md)."""

MAX_FAILURES = 5
"""Times that the store may fail in a commit; what it reads it asks for again by itself."""

LONGEST_PAUSE_S = 1.0
"""Between two attempts, s; the first pauses are shorter."""

SAFE_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
"""What recipe, shard and run ids may consist of, so that they can stand in a key and in a predicate."""

WRITING = WriterProperties(compression="ZSTD", compression_level=3)


def commit_shard(lake_uri: str, rows: ShardRows) -> ShardRows:
    """Make a shard's rows visible, all at once, but for recordings that the lake holds already.

    Returns the rows that readers see now because of this call, or of an earlier one with the same rows; none where all
    of these recordings were there before.
    """
    safe_ids(recipe_id=rows.recipe_id, shard_id=rows.shard_id)
    written = commit_transcripts(lake_uri, rows.recipe_id, shard_table(rows))
    return replace(
        rows,
        recordings=[row for row in rows.recordings if row["recording_id"] in written],
        segments=[row for row in rows.segments if row["recording_id"] in written],
    )


def commit_transcripts(lake_uri: str, recipe_id: str, data: pa.Table) -> set[str]:
    """Commit rows of `transcripts` without a look at what they say; otherwise as `commit_shard`.

    A recording is held where its rows of the same recipe have this take or a higher one; rows of a lower take are
    replaced, wherever they lie. `data` are complete recordings of one recipe, in the order in which they are to be
    stored. Returns the ids of the recordings that readers see with these rows.
    """
    lake, kinds = open_lake(lake_uri), pc.equal(data["row_kind"], "recording")
    rows = {row["recording_id"]: row for row in data.filter(kinds).select(OWNER_COLUMNS).to_pylist()}
    safe_ids(**{f"recording_id of row {number}": recording_id for number, recording_id in enumerate(rows)})

    def attempt(table: DeltaTable) -> set[str]:
        held = held_owners(lake, table, recipe_id, set(rows))
        fresh = {recording_id for recording_id, row in rows.items() if take_of(held.get(recording_id)) < take_of(row)}
        if fresh:
            _write(table, data, recipe_id, sorted(fresh), is_replacing=not fresh.isdisjoint(held))
        return fresh | {recording_id for recording_id, row in rows.items() if held.get(recording_id) == row}

    return _committed(lake, "transcripts", attempt)


def append_rows(lake_uri: str, name: str, rows: Sequence[Row]) -> bool:
    """Add rows to `runs`, `evaluations` or `presence`, all at once: all rows of the `run_id`s that they have.

    False where nothing was added: each execution's rows lie there already, or there are none.
    """
    if not rows:
        return False
    at = "noticed_at" if name == "presence" else "started_at"
    data = to_arrow(name, [row | {"date": row[at].astimezone(UTC).date()} for row in rows])
    run_ids = sorted({row["run_id"] for row in rows})
    safe_ids(**{f"run_id {run_id}": run_id for run_id in run_ids})

    def attempt(table: DeltaTable) -> bool:
        fresh = [run_id for run_id in run_ids if table.transaction_version(run_id) is None]
        if fresh:
            _append(table, _of(data, "run_id", fresh), [Transaction(run_id, 1) for run_id in fresh])
        return bool(fresh)

    return _committed(open_lake(lake_uri), name, attempt)


def shard_table(rows: ShardRows) -> pa.Table:
    """Turn a shard's rows into rows of `transcripts` in their order; IntegrityError where they break a rule."""
    dates = {row["recording_id"]: row["modified_at"].astimezone(UTC).date() for row in rows.recordings}
    added = {
        view: [
            row | {"recipe_id": rows.recipe_id, "date": dates.get(row["recording_id"], date.min)} for row in view_rows
        ]
        for view, view_rows in (("recordings", rows.recordings), ("segments", rows.segments))
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


def _committed(lake: Lake, name: str, attempt: Callable[[DeltaTable], Result]) -> Result:
    """Look at a table and commit to it, again after each conflict and a few failures of the store.

    The next look shows whether a commit is there whose answer was lost.
    """
    num_failures = 0
    for number in range(MAX_ATTEMPTS):
        table = open_table(lake, name) or create_table(lake, name)
        try:
            with delta_errors(f"{lake.uri}/{name}"):
                return attempt(table)
        except CommitFailedError:
            pass
        except TransientError:
            num_failures += 1
            if num_failures > MAX_FAILURES:
                raise
        time.sleep(random.uniform(0, min(LONGEST_PAUSE_S, 0.02 * 2 ** min(number, 10))))  # spreads the writers
    raise TransientError(f"{lake.uri}: others commit all the time; {name} was tried {MAX_ATTEMPTS} times.")


def _write(table: DeltaTable, data: pa.Table, recipe_id: str, fresh: Sequence[str], *, is_replacing: bool) -> None:
    """Commit the rows of some recordings, in place of what lies there of them.

    Every writer of a recipe bears the recipe's name as transaction: of two that looked at the same version of the table
    the second one fails, and looks again. Only so is what was looked up before the commit still true in it.
    """
    rows, transactions = _of(data, "recording_id", fresh), [Transaction(recipe_id, table.version() + 1)]
    if not is_replacing:
        _append(table, rows, transactions)
        return
    names = ", ".join(f"'{recording_id}'" for recording_id in fresh)
    write_deltalake(
        table,
        rows,
        mode="overwrite",
        predicate=f"recipe_id = '{recipe_id}' and recording_id in ({names})",
        schema_mode="merge",
        writer_properties=WRITING,
        commit_properties=CommitProperties(app_transactions=transactions),
    )


def _append(table: DeltaTable, rows: pa.Table, transactions: list[Transaction]) -> None:
    write_deltalake(
        table, rows, mode="append", schema_mode="merge", writer_properties=WRITING,
        commit_properties=CommitProperties(app_transactions=transactions),
    )  # fmt: skip


def _of(data: pa.Table, column: str, values: Sequence[str]) -> pa.Table:
    return data.filter(pc.is_in(data[column], value_set=pa.array(values, pa.string())))
