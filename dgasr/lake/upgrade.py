"""A lake of the format before Delta Lake in, the same rows in a new one out. Changes nothing in the old lake.

In the old format a shard's parts are visible once `commits/` or the highest manifest names them, parts of `runs` and
the like once they lie there; of several sets of rows of one recording one counts.
"""

import gzip
import json
import logging
import re
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from dgasr.errors import ConfigError, IntegrityError
from dgasr.lake.commit import append_rows, commit_transcripts
from dgasr.lake.files import PROTOCOL
from dgasr.lake.location import OLD_FOLDERS, Lake, lake_uri_of, open_lake, storage_error
from dgasr.lake.schema import TABLES, VIEWS, table_schema
from dgasr.lake.table import READ_THREADS
from dgasr.lake.views import open_duckdb, scan_statement

logger = logging.getLogger(__name__)

SHARDS_AT_ONCE = 200
"""Shards, an hour of audio each, whose rows are in memory and go into one commit: some 200 MB."""

OWN_PART = re.compile(r"[A-Za-z0-9_-]{1,128}\.parquet")
"""Name of a part that one execution wrote; merged parts have a dot more, and only a manifest makes them visible."""

COUNTING = """
    create temp table counting as
    select recipe_id, "date", recording_id, shard_id,
        (dense_rank() over (partition by recipe_id, "date" order by shard_id) - 1) // $shards as batch
    from (
        select * from recordings
        qualify row_number() over (
            partition by recipe_id, recording_id order by coalesce(take, 0) desc, transcribed_at, shard_id
        ) = 1
    )
"""
"""Of several sets of rows of one recording and recipe the one that counts, and the commit it goes into."""

ROWS_OF_BATCH = """
    with chosen as (
        from counting where recipe_id = $recipe_id and "date" = $date and batch = $batch
    )
    select *, 'recording' as row_kind from recordings semi join chosen using (recipe_id, "date", recording_id, shard_id)
    union all by name
    select *, 'segment' as row_kind from segments semi join chosen using (recipe_id, "date", recording_id, shard_id)
    order by row_kind, recording_id, segment_index
"""

Keys = dict[str, list[str]]
"""Keys of parts by table."""


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

    Nothing may write to the old lake meanwhile; in the new one nothing need lie yet.

    Raises:
        ConfigError: there is no old lake, or both are the same.
        IntegrityError: the old lake contradicts itself; `dgasr lake check` of the version that wrote it says how.
        TransientError: a store does not answer.
    """
    if lake_uri_of(old_uri) == lake_uri_of(new_uri):
        raise ConfigError(f"{old_uri}: an old lake is copied, not changed. Name another place for the new one.")
    old = open_lake(old_uri)
    commits = [key for key in old.list_files("commits") if key.endswith(".json")]
    if not commits and not any(old.list_files(folder) for folder in OLD_FOLDERS):
        raise ConfigError(f"{old_uri}: is no lake of the format before Delta Lake, and needs no upgrade.")
    keys = _visible_parts(old, commits)
    sizes = {key: info.size for table in keys for key, info in old.list_files(table).items()}
    for key in (key for found in keys.values() for key in found if key not in sizes):
        raise IntegrityError(f"{old.uri}/{key}: a part is missing. Restore it from a copy.")
    scans = [scan_statement(name, [f"{PROTOCOL}://{key}" for key in found]) for name, found in keys.items()]
    connection, files = open_duckdb(old, sizes, scans)
    with connection:
        try:
            return _copy(connection, old, new_uri)
        except duckdb.Error as error:
            raise files.sort_error(error) or error from error


def _copy(connection: duckdb.DuckDBPyConnection, old: Lake, new_uri: str) -> Upgrade:
    """Copy the rows that count, some shards at a time, and the rows of the other tables."""
    connection.execute(COUNTING, {"shards": SHARDS_AT_ONCE})
    copied: set[tuple[str, str]] = set()
    batches = connection.execute('select distinct recipe_id, "date", batch from counting order by all').fetchall()
    for recipe_id, day, batch in batches:
        values = {"recipe_id": recipe_id, "date": day, "batch": batch}
        rows = connection.sql(ROWS_OF_BATCH, params=values).to_arrow_table()
        schema = table_schema("transcripts")
        data = pa.Table.from_arrays([rows[field.name].cast(field.type) for field in schema], schema=schema)
        num_said, num_there = pc.sum(data["num_segments"]).as_py() or 0, data["segment_index"].drop_null().length()
        if num_said != num_there:
            raise IntegrityError(
                f"{old.uri}: recordings of recipe {recipe_id} on {day} say num_segments={num_said}, and {num_there} "
                "are there. Mend the old lake first."
            )
        copied |= {(recipe_id, recording_id) for recording_id in commit_transcripts(new_uri, recipe_id, data)}
        logger.info("%s: recipe %s, %s is copied", new_uri, recipe_id, day)
    num_rows = 0
    for name in (name for name in TABLES if name != "transcripts"):
        found = connection.sql(f'select * exclude ("date") from {name}').to_arrow_table().to_pylist()
        num_rows += len(found) if append_rows(new_uri, name, found) else 0
    ((num_left,),) = connection.execute(
        "select (select count(*) from recordings) - (select count(*) from counting)"
    ).fetchall()
    return Upgrade(num_recordings=len(copied), num_left=num_left, num_rows=num_rows)


def _visible_parts(old: Lake, commits: list[str]) -> Keys:
    """List the parts that readers of an old lake see, by table."""
    manifest: dict[str, Any] = {"parts": [], "covers": [], "dropped": []}
    manifests = [key for key in old.list_files("manifests") if re.fullmatch(r"manifests/\d{8}\.json\.gz", key)]
    if manifests:
        manifest = json.loads(gzip.decompress(_read(old, manifests[-1])))
    covers, dropped = set(manifest["covers"]), set(manifest["dropped"])
    keys: Keys = defaultdict(list)
    for table, key in [*((part[0], part[1]) for part in manifest["parts"]), *_committed(old, commits, covers)]:
        if not any(f"/recipe_id={recipe_id}/" in key for recipe_id in dropped):
            keys[table].append(key)
    for table in TABLES:
        if table != "transcripts":
            own = [key for key in old.list_files(table) if OWN_PART.fullmatch(key.rpartition("/")[2])]
            keys[table] = sorted({*keys[table], *(key for key in own if key not in covers)})
    return {name: keys[name] for name in (*VIEWS, *TABLES) if name != "transcripts"}


def _committed(old: Lake, commits: list[str], covers: set[str]) -> Iterator[tuple[str, str]]:
    """Yield table and key of the parts that commits name which no manifest covers."""
    with ThreadPoolExecutor(READ_THREADS) as pool:
        for data in pool.map(lambda key: _read(old, key), [key for key in commits if key not in covers]):
            yield from ((part["table"], part["key"]) for part in json.loads(data)["parts"])


def _read(lake: Lake, key: str) -> bytes:
    """Read an object of the lake whole."""
    try:
        with lake.filesystem.open_input_stream(lake.path(key), compression=None) as stream:
            return stream.read()
    except OSError as error:
        raise storage_error(lake.uri, error) from error
