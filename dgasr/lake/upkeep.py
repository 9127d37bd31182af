"""A lake kept in good order: small files merged, a damaged partition taken out."""

import logging
import re
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
from deltalake import BloomFilterProperties, ColumnProperties, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError

from dgasr.errors import ConfigError, TransientError
from dgasr.lake.location import Lake, open_existing_lake
from dgasr.lake.schema import TABLES, table_schema
from dgasr.lake.table import File, active_files, delta_errors, open_table, read_batches

logger = logging.getLogger(__name__)

Partition = tuple[tuple[str, str], ...]
"""Columns and values of a partition."""

PARTITION = re.compile(
    rf"(?:recipe_id=([A-Za-z0-9_-]+)|({'|'.join(name for name in TABLES if name != 'transcripts')}))"
    r"(?:/date=(\d{4}-\d\d-\d\d))?"
)

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
class CompactionConfig:
    """How files are merged.

    Attributes:
        target_bytes: length at which a merged file is closed, bytes.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    target_bytes: int = 128 * 2**20

    def __post_init__(self) -> None:
        """Refuse sizes that merge nothing."""
        if self.target_bytes <= 0:
            raise ConfigError(f"CompactionConfig: target_bytes={self.target_bytes} must be positive.")


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


def compact(lake_uri: str, config: CompactionConfig) -> Compaction:
    """Merge the files of each partition that has small ones.

    May be killed and started again at any time, beside writers, readers and other compactions. The files that were
    merged stay until `vacuum` removes them: whoever looked before still reads them.

    Each partition is overwritten with its own rows. `DeltaTable.optimize.compact` would be cheaper, but two of them at
    once double all rows in delta-rs 1.6.6, whatever `commit_properties` say (docs/decisions/0021-delta-lake.md).

    Raises:
        ConfigError: no lake lies there, or it cannot be written.
        IntegrityError: the lake cannot be read.
        TransientError: the store does not answer.
    """
    lake, done = open_existing_lake(lake_uri), Compaction()
    for name in TABLES:
        for partition in sorted(_mergeable(active_files(open_table(lake, name), name), config.target_bytes)):
            done += _merge(lake, name, dict(partition), config.target_bytes)
    logger.info("compaction of %s: %s", lake_uri, done.line())
    return done


def _mergeable(files: Iterable[File], target_bytes: int) -> dict[Partition, list[File]]:
    """Return the files of each partition that holds several small ones."""
    found: dict[Partition, list[File]] = defaultdict(list)
    for file in files:
        found[tuple(file.partition.items())].append(file)
    return {
        partition: members
        for partition, members in found.items()
        if sum(file.size_bytes < target_bytes / 2 for file in members) > 1
    }


def _merge(lake: Lake, name: str, partition: dict[str, str], target_bytes: int) -> Compaction:
    """Overwrite a partition with its own rows, in the order in which they lie there."""
    for _ in range(MAX_CONFLICTS):
        table = open_table(lake, name)
        files = _mergeable(active_files(table, name, **partition), target_bytes).get(tuple(partition.items()))
        if table is None or files is None:
            return Compaction()
        with suppress(CommitFailedError), delta_errors(f"{lake.uri}/{name}"):
            batches = (
                batch for file in active_files(table, name, **partition) for batch in read_batches(lake, file, 8192)
            )
            write_deltalake(
                table,
                pa.RecordBatchReader.from_batches(table_schema(name), batches),
                mode="overwrite",
                predicate=" and ".join(f"{column} = '{value}'" for column, value in partition.items()),
                target_file_size=target_bytes,
                writer_properties=MERGED,
            )
            num_written = len(active_files(table, name, **partition))
            return Compaction(num_merged=len(files), num_written=num_written)
        time.sleep(0.1)
    return Compaction(num_busy=1)


def forget_partition(lake_uri: str, partition: str) -> int:
    """Take a partition out, whole or not, so that the ledger holds nothing of it and the next run fills it anew.

    Args:
        lake_uri: the lake.
        partition: `recipe_id=…/date=…`, `recipe_id=…` for all dates, or `runs/date=…` and the like.

    Returns:
        Files that readers do not see any more; `vacuum` removes them.

    Raises:
        ConfigError: no lake lies there, or this is no partition.
        IntegrityError: the log cannot be read.
        TransientError: the store does not answer, or others replaced the same files all the time.
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
