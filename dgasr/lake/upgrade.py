"""A lake of the format before Delta Lake in, the same rows in a new one out. Reads no more of the old than it must.

In the old format a shard's parts are visible once `commits/` or the highest manifest names them, parts of `runs` and
the like once they lie there; of several sets of rows of one recording one counts. Changes nothing in the old lake.
"""

import gzip
import json
import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from dgasr.errors import ConfigError, IntegrityError
from dgasr.lake.commit import append_rows, commit_transcripts
from dgasr.lake.location import OLD_FOLDERS, Lake, lake_uri_of, open_lake, storage_error
from dgasr.lake.schema import RECORDINGS, ROW_KINDS, SEGMENTS, TABLES, table_schema
from dgasr.lake.table import READ_THREADS

logger = logging.getLogger(__name__)

SHARDS_AT_ONCE = 200
"""Shards, an hour of audio each, whose rows are in memory and go into one commit: some 200 MB."""

OWN_PART = re.compile(r"[A-Za-z0-9_-]{1,128}\.parquet")
"""Name of a part that one execution wrote; merged parts have a dot more, and only a manifest makes them visible."""

WINNER = [("take", "descending"), ("transcribed_at", "ascending"), ("shard_id", "ascending")]
"""Order in which the first of several sets of rows of one recording and recipe counts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Upgrade:
    """What was copied."""

    num_recordings: int
    """Recordings that the new lake has now because of it."""
    num_left: int
    """Sets of rows that others had superseded, and that stay behind."""
    num_rows: int
    """Rows of `runs`, `evaluations` and `presence`."""

    def line(self) -> str:
        """Say it in one line."""
        return (
            f"{self.num_recordings} recordings and {self.num_rows} rows of other tables were copied; "
            f"{self.num_left} superseded sets of rows were left behind"
        )


def upgrade_lake(old_uri: str, new_uri: str) -> Upgrade:
    """Copy what readers of an old lake see into a new one; may be killed and started again, and copies nothing twice.

    Args:
        old_uri: the old lake; nothing may write to it meanwhile.
        new_uri: the new one; nothing need lie there yet.

    Returns:
        What was copied.

    Raises:
        ConfigError: there is no old lake, or both are the same.
        IntegrityError: the old lake contradicts itself; `dgasr lake check` of the version that wrote it says how.
        TransientError: a store does not answer.
    """
    if lake_uri_of(old_uri) == lake_uri_of(new_uri):
        raise ConfigError(f"{old_uri}: an old lake is copied, not changed. Name another place for the new one.")
    old = open_lake(old_uri)
    manifest = _manifest(old)
    commits = [key for key in old.list_sizes("commits") if key.endswith(".json")]
    if not commits and not any(old.list_sizes(folder) for folder in OLD_FOLDERS):
        raise ConfigError(f"{old_uri}: is no lake of the format before Delta Lake, and needs no upgrade.")
    by_partition: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for table, key in _shard_parts(old, manifest, commits):
        by_partition[_value(key, "recipe_id"), _value(key, "date")][table].append(key)
    copied: set[tuple[str, str]] = set()
    winners = _winners(old, {place: tables["recordings"] for place, tables in by_partition.items()})
    for (recipe_id, day), rows in winners.items():
        segments = by_partition[recipe_id, day]["segments"]
        for shard_ids in _groups(sorted(rows["shard_id"].unique().to_pylist()), SHARDS_AT_ONCE):
            recordings = rows.filter(pc.is_in(rows["shard_id"], value_set=pa.array(shard_ids)))
            data = _transcripts(old, recordings, segments, shard_ids, recipe_id, day)
            copied |= {(recipe_id, recording_id) for recording_id in commit_transcripts(new_uri, recipe_id, data)}
        logger.info("%s: recipe %s, %s is copied", new_uri, recipe_id, day)
    num_sets = sum(_rows(old, "recordings", tables["recordings"]).num_rows for tables in by_partition.values())
    num_rows = 0
    for table in TABLES:
        if table != "transcripts":
            found = _rows(old, table, _loose_parts(old, manifest, table)).to_pylist()
            num_rows += len(found) if append_rows(new_uri, table, found) else 0
    num_left = num_sets - sum(rows.num_rows for rows in winners.values())
    return Upgrade(num_recordings=len(copied), num_left=num_left, num_rows=num_rows)


def _manifest(old: Lake) -> dict[str, Any]:
    """Read the manifest that readers follow: `parts`, `covers` and `dropped`, empty where there is none."""
    keys = [key for key in old.list_sizes("manifests") if re.fullmatch(r"manifests/\d{8}\.json\.gz", key)]
    return json.loads(gzip.decompress(old.read(keys[-1]))) if keys else {"parts": [], "covers": [], "dropped": []}


def _shard_parts(old: Lake, manifest: dict[str, Any], commits: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield table and key of the parts of recordings and segments that readers see."""
    covers, dropped = set(manifest["covers"]), set(manifest["dropped"])
    wanted = [key for key in commits if key not in covers]
    with ThreadPoolExecutor(READ_THREADS) as pool:
        parts = [
            (part["table"], part["key"]) for data in pool.map(old.read, wanted) for part in json.loads(data)["parts"]
        ]
    for table, key in [*((part[0], part[1]) for part in manifest["parts"]), *parts]:
        if table in ROW_KINDS and _value(key, "recipe_id") not in dropped:
            yield table, key


def _loose_parts(old: Lake, manifest: dict[str, Any], table: str) -> list[str]:
    """List the parts of a table without shards: merged ones, and those of single executions."""
    covers = set(manifest["covers"])
    merged = [key for name, key, *_ in manifest["parts"] if name == table]
    own = [key for key in old.list_sizes(table) if OWN_PART.fullmatch(key.rpartition("/")[2])]
    return sorted({*merged, *(key for key in own if key not in covers)})


def _winners(old: Lake, parts: dict[tuple[str, str], list[str]]) -> dict[tuple[str, str], pa.Table]:
    """Read the recordings that count, one set of rows for each recipe and recording, by recipe and date."""
    tables = {place: _rows(old, "recordings", keys) for place, keys in parts.items()}
    columns = ["recording_id", "transcribed_at", "shard_id"]
    candidates = [
        rows.select(columns)
        .append_column("take", pc.fill_null(rows["take"], 0))
        .append_column("set", _sets(rows, *place))
        .append_column("recipe_id", pa.repeat(place[0], rows.num_rows))
        for place, rows in tables.items()
    ]
    best: dict[tuple[str, str], str] = {}
    for row in pa.concat_tables(candidates).sort_by(WINNER).to_pylist():
        best.setdefault((row["recipe_id"], row["recording_id"]), row["set"])
    counting = pa.array(best.values(), pa.string())
    return {place: rows.filter(pc.is_in(_sets(rows, *place), value_set=counting)) for place, rows in tables.items()}


def _sets(rows: pa.Table, recipe_id: str = "", day: str = "") -> pa.ChunkedArray:
    """Name the set of rows that each row belongs to: one recording in one shard, of a recipe, on a day."""
    return pc.binary_join_element_wise(rows["recording_id"], rows["shard_id"], recipe_id, day, "/")


def _transcripts(
    old: Lake, recordings: pa.Table, segments: Sequence[str], shard_ids: Sequence[str], recipe_id: str, day: str
) -> pa.Table:
    """Make rows of `transcripts` from recordings of some shards and the parts that hold their segments."""
    own = _rows(old, "segments", segments, pc.field("shard_id").isin(shard_ids))
    own = own.filter(pc.is_in(_sets(own), value_set=_sets(recordings).combine_chunks()))
    if own.num_rows != (pc.sum(recordings["num_segments"]).as_py() or 0):
        raise IntegrityError(
            f"{old.uri}: recordings of recipe {recipe_id} on {day} say num_segments="
            f"{pc.sum(recordings['num_segments'])}, and {own.num_rows} are there. Mend the old lake first."
        )
    own = own.sort_by([("recording_id", "ascending"), ("segment_index", "ascending")])
    schema, constants, added = (
        table_schema("transcripts"),
        {"recipe_id": recipe_id, "date": date.fromisoformat(day)},
        [],
    )
    for view, rows in (("recordings", recordings.sort_by("recording_id")), ("segments", own)):
        values = constants | {"row_kind": ROW_KINDS[view]}
        columns = [
            rows[field.name]
            if field.name in rows.column_names
            else pa.repeat(pa.scalar(values.get(field.name), field.type), rows.num_rows)
            for field in schema
        ]
        added.append(pa.table(columns, schema=schema))
    return pa.concat_tables(added)


def _rows(old: Lake, table: str, keys: Sequence[str], filter: pc.Expression | None = None) -> pa.Table:
    """Read parts of an old table; columns that came later are null, and the date of loose ones is left out."""
    schema = {"recordings": RECORDINGS, "segments": SEGMENTS}.get(table) or TABLES[table]
    if not keys:
        return schema.empty_table()
    try:
        source = pyarrow.dataset.FileSystemDataset.from_paths(
            [old.path(key) for key in keys],
            schema=schema,
            format=pyarrow.dataset.ParquetFileFormat(),
            filesystem=old.filesystem,
        )
        return source.to_table(filter=filter)
    except FileNotFoundError as error:
        raise IntegrityError(f"{old.uri}: a part is missing ({error}). Restore it from a copy.") from error
    except OSError as error:
        raise storage_error(old.uri, error) from error
    except pa.ArrowException as error:
        raise IntegrityError(f"{old.uri}: a part cannot be read ({error}). Restore it from a copy.") from error


def _groups(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Cut a list into pieces."""
    yield from (items[first : first + size] for first in range(0, len(items), size))


def _value(key: str, column: str) -> str:
    """Return what a key says of a partition column."""
    return next((piece.partition("=")[2] for piece in key.split("/") if piece.startswith(f"{column}=")), "")
