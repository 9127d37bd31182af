"""A lake kept in good order: small files merged, a damaged partition taken out, what nobody needs removed.

All of it may be killed and started again at any time, beside writers, readers and itself. Everything here raises
ConfigError where no lake lies or it cannot be written, IntegrityError where it cannot be read, and TransientError where
the store does not answer.
"""

import logging
import re
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil

import pyarrow as pa
from deltalake import BloomFilterProperties, ColumnProperties, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError

from dgasr.errors import ConfigError, TransientError
from dgasr.lake.location import Lake, open_existing_lake, storage_error
from dgasr.lake.schema import TABLES, table_schema
from dgasr.lake.table import File, active_files, delta_errors, open_table, read_batches

logger = logging.getLogger(__name__)

Partition = tuple[tuple[str, str], ...]
"""Columns and values of a partition."""

PARTITION = re.compile(
    rf"(?:recipe_id=([A-Za-z0-9_-]+)|({'|'.join(name for name in TABLES if name != 'transcripts')}))"
    r"(?:/date=(\d{4}-\d\d-\d\d))?"
)

TARGET_BYTES = 128 * 2**20
"""Length at which a merged file is closed, bytes."""

GRACE_S = 2 * 24 * 3600.0
"""How long a question may take that was begun before a compaction, and how long a writer may pause, s; nothing that
either may still need is removed."""

MAX_CONFLICTS = 8
"""Times that somebody else may commit to the same files first before upkeep gives up for now."""

ROWS_AT_ONCE = 8192
"""Rows of a merge that are in memory together: about 16 MB."""

ROW_GROUP_ROWS = 16_384
"""Rows that a reader who is sure of one of them fetches together: about 5 MB."""

ASKED_ONE_BY_ONE = ColumnProperties(
    bloom_filter_properties=BloomFilterProperties(set_bloom_filter_enabled=True, fpp=0.01, ndv=ROW_GROUP_ROWS)
)
"""Of `recording_id` and `uri`, whose values are spread over all files; a row group in a hundred is read in vain."""

MERGED = WriterProperties(
    compression="ZSTD",
    compression_level=9,  # files that are written once and read for years: 5 % smaller than 3, three times as slow
    max_row_group_size=ROW_GROUP_ROWS,
    column_properties={"recording_id": ASKED_ONE_BY_ONE, "uri": ASKED_ONE_BY_ONE},
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Compaction:
    """What a compaction did."""

    num_merged: int = 0
    """Files that were merged."""
    num_written: int = 0
    """Files that they became."""
    num_busy: int = 0
    """Partitions that were left for next time, because others wrote to them all the time."""

    def __add__(self, other: "Compaction") -> "Compaction":
        return Compaction(**{name: getattr(self, name) + getattr(other, name) for name in self.__slots__})

    def line(self) -> str:
        """Say it in one line."""
        merged = f"{self.num_merged} files became {self.num_written}" if self.num_merged else "no files worth merging"
        busy = f", {self.num_busy} partitions are being written to and were left for next time" if self.num_busy else ""
        return merged + busy


def compact(lake_uri: str) -> Compaction:
    """Merge the files of each partition that has small ones; those that were merged stay until `vacuum` removes them.

    Each partition is overwritten with its own rows. `DeltaTable.optimize.compact` would be cheaper, but two of them at
    once double all rows in delta-rs 1.6.6, whatever `commit_properties` say (docs/decisions/0021-delta-lake.md).
    """
    lake, done = open_existing_lake(lake_uri), Compaction()
    for name in TABLES:
        for partition in sorted(_mergeable(active_files(open_table(lake, name), name))):
            done += _merge(lake, name, dict(partition))
    logger.info("compaction of %s: %s", lake_uri, done.line())
    return done


def _mergeable(files: Iterable[File]) -> dict[Partition, list[File]]:
    """Return the files of each partition that holds several small ones."""
    found: dict[Partition, list[File]] = defaultdict(list)
    for file in files:
        found[tuple(file.partition.items())].append(file)
    return {
        partition: members
        for partition, members in found.items()
        if sum(file.size_bytes < TARGET_BYTES / 2 for file in members) > 1
    }


def _merge(lake: Lake, name: str, partition: dict[str, str]) -> Compaction:
    """Overwrite a partition with its own rows, in the order in which they lie there."""
    for _ in range(MAX_CONFLICTS):
        table = open_table(lake, name)
        files = active_files(table, name, **partition)
        if table is None or not _mergeable(files):
            return Compaction()
        with suppress(CommitFailedError), delta_errors(f"{lake.uri}/{name}"):
            batches = (batch for file in files for batch in read_batches(lake, file, ROWS_AT_ONCE))
            write_deltalake(
                table,
                pa.RecordBatchReader.from_batches(table_schema(name), batches),
                mode="overwrite",
                predicate=" and ".join(f"{column} = '{value}'" for column, value in partition.items()),
                target_file_size=TARGET_BYTES,
                writer_properties=MERGED,
            )
            return Compaction(num_merged=len(files), num_written=len(active_files(table, name, **partition)))
        time.sleep(0.1)
    return Compaction(num_busy=1)


def forget_partition(lake_uri: str, partition: str) -> int:
    """Take a partition out, whole or not, so that the lake holds nothing of it and the next run fills it anew.

    It is `recipe_id=…/date=…`, `recipe_id=…` for all dates, or `runs/date=…` and the like. Returns how many files
    readers do not see any more; `vacuum` removes them.
    """
    match = PARTITION.fullmatch(partition)
    if not match:
        raise ConfigError(f"{partition}: is no partition. Write recipe_id=…/date=YYYY-MM-DD, or runs/date=YYYY-MM-DD.")
    lake, name = open_existing_lake(lake_uri), match[2] or "transcripts"
    conditions = [f"{column} = '{value}'" for column, value in (("recipe_id", match[1]), ("date", match[3])) if value]
    for _ in range(MAX_CONFLICTS):
        table = open_table(lake, name)
        if table is None:
            return 0
        with suppress(CommitFailedError), delta_errors(f"{lake.uri}/{name}"):
            return int(table.delete(" and ".join(conditions) or None)["num_removed_files"])
        time.sleep(0.1)
    raise TransientError(f"{lake_uri}/{name}: others replace the same files all the time. Stop them, or try again.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Vacuum:
    """What may go, or what went."""

    unused: tuple[str, ...]
    """Keys of files of tables that no version within the grace period names."""
    staged: tuple[str, ...]
    """Keys of features and notes of runs that ended or died."""
    is_dry_run: bool
    """Nothing was changed."""

    def line(self) -> str:
        """Say it in one line."""
        verb = "would be" if self.is_dry_run else "were"
        return f"{len(self.unused)} unused files and {len(self.staged)} staged files {verb} removed"


def vacuum(lake_uri: str, grace_s: float = GRACE_S, *, is_dry_run: bool = False) -> Vacuum:
    """Remove what nobody needs any more, or say what that is: unused files, after whole hours, and staged files."""
    if grace_s < 0:
        raise ConfigError(f"vacuum: grace_s={grace_s} is a duration, 0 s or more.")
    lake, now = open_existing_lake(lake_uri), datetime.now(UTC)
    unused = unused_files(lake, grace_s, is_dry_run=is_dry_run)
    staged = sweep_staging(lake, now - timedelta(seconds=grace_s), is_dry_run=is_dry_run)
    done = Vacuum(unused=tuple(unused), staged=tuple(staged), is_dry_run=is_dry_run)
    logger.info("vacuum of %s: %s", lake_uri, done.line())
    return done


def unused_files(lake: Lake, grace_s: float, *, is_dry_run: bool = True) -> list[str]:
    """List what no version of a table within the grace period names, of killed writers too; remove it if asked."""
    keys: list[str] = []
    for name in TABLES:
        if (table := open_table(lake, name)) is not None:
            with delta_errors(f"{lake.uri}/{name}"):
                hours = ceil(grace_s / 3600)
                found = table.vacuum(hours, dry_run=is_dry_run, enforce_retention_duration=False, full=True)
            keys += [f"{name}/{key}" for key in found]
    return keys


KEPT = timedelta(days=2)
"""How long after its last object was written a staged part or a run's folder may be in use; heartbeats come oftener."""


def sweep_staging(lake: Lake, before: datetime, *, is_dry_run: bool = False) -> list[str]:
    """Remove what lies in staging for shards and runs of which nothing was written since a time; list its keys.

    In reverse order, so that a staged part loses its mark of wholeness first. On S3 pyarrow leaves an empty object of
    a folder's name, which nobody lists.
    """
    owners: dict[tuple[str, ...], list[str]] = defaultdict(list)
    files = lake.list_files("staging")
    for key in files:  # a long run's oldest assignment is as new as its newest heartbeat
        owners[tuple(key.split("/")[1:3])].append(key)
    settled = [keys for keys in owners.values() if all(files[key].mtime < before for key in keys)]
    swept = sorted((key for keys in settled for key in keys), reverse=True)
    for key in () if is_dry_run else swept:
        try:
            lake.filesystem.delete_file(lake.path(key))
        except FileNotFoundError:
            continue  # somebody else was faster
        except OSError as error:
            raise storage_error(lake.uri, error) from error
    return swept
