"""Many small parts in, few large ones and their postings out, while others write and read. Removes nothing.

Why a reader, a writer and a second compaction may run beside it: docs/decisions/0016-manifests.md
"""

import logging
import secrets
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from dgasr.errors import ConfigError, IntegrityError, TransientError
from dgasr.lake.commits import Part, claimed_shards, commit_key, indexed_key, postings_key
from dgasr.lake.location import Lake, open_existing_lake
from dgasr.lake.manifests import MAX_CONFLICTS, Manifest, publish_manifest
from dgasr.lake.parts import Store, finish_shard, write_once
from dgasr.lake.postings import SOURCE_COLUMNS, postings_of, unindexed_parts, without_stale
from dgasr.lake.rewriting import encode_part, read_group
from dgasr.lake.schema import DERIVED_TABLES, TABLES
from dgasr.lake.snapshot import Snapshot, snapshot

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class CompactionConfig:
    """How parts are merged.

    Attributes:
        target_bytes: length at which a merged part is closed, bytes; parts of half this length and more stay as they
            are. The rows of one merged part are in memory at once, some eight times their length in the file.
        batch_bytes: length of the parts that are merged before a manifest is published, bytes: what a killed
            compaction has done in vain at most.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    target_bytes: int = 32 * 2**20
    batch_bytes: int = 512 * 2**20

    def __post_init__(self) -> None:
        """Refuse sizes that merge nothing."""
        if not 0 < self.target_bytes <= self.batch_bytes:
            raise ConfigError(
                f"CompactionConfig: target_bytes={self.target_bytes} must be positive and at most "
                f"batch_bytes={self.batch_bytes}."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Compaction:
    """What a compaction did; several add.

    Attributes:
        num_finished: shards that a killed writer had claimed and not published, and that are visible now.
        num_covered: commits that readers need not fetch one by one any more.
        num_merged: parts that were merged.
        num_written: parts that they became.
        merged_bytes: length of the former, bytes.
        written_bytes: length of the latter, bytes.
        num_indexed: parts of segments whose words were written down for searches.
        num_conflicts: times that somebody else's manifest came first, and work was done again.
        damaged: what could not be merged, and why, in sentences.
    """

    num_finished: int = 0
    num_covered: int = 0
    num_merged: int = 0
    num_written: int = 0
    merged_bytes: int = 0
    written_bytes: int = 0
    num_indexed: int = 0
    num_conflicts: int = 0
    damaged: tuple[str, ...] = ()

    def __add__(self, other: "Compaction") -> "Compaction":
        return Compaction(**{name: getattr(self, name) + getattr(other, name) for name in self.__slots__})

    def line(self) -> str:
        """Say it in one line."""
        merged = (
            f"{self.num_merged} parts ({self.merged_bytes / 1e6:.1f} MB) became {self.num_written} "
            f"({self.written_bytes / 1e6:.1f} MB)"
            if self.num_merged
            else "no parts worth merging"
        )
        indexed = f", {self.num_indexed} were indexed for searches" if self.num_indexed else ""
        finished = f", {self.num_finished} shards of killed writers were published" if self.num_finished else ""
        damaged = f", {len(self.damaged)} groups were left alone because a part is damaged" if self.damaged else ""
        return f"{merged}{indexed}, {self.num_covered} commits are in the manifest now{finished}{damaged}"


def compact(store: Store, lake_uri: str, config: CompactionConfig) -> Compaction:
    """Merge the small parts of each partition, index what was said, and note in a manifest what there is.

    May be killed and started again at any time, and several may run at once. The parts that were merged stay until
    `vacuum` removes them: whoever looked before still reads them. What is committed meanwhile is left for next time.

    Args:
        store: where the lake lies.
        lake_uri: the lake.
        config: how large parts become.

    Returns:
        What was done.

    Raises:
        ConfigError: no lake lies there, or it cannot be written.
        IntegrityError: commits and parts contradict each other.
        TransientError: the store does not answer, or others published all the time.
    """
    lake = open_existing_lake(lake_uri)
    done = Compaction(num_finished=_finish_claims(store, lake))
    found = snapshot(lake)
    eligible = {part.key for parts in found.parts.values() for part in parts}
    damaged: set[str] = set()
    is_noted = not found.commits
    while True:
        groups = list(_groups(found, eligible - damaged, config))
        unindexed = [[part] for part in unindexed_parts(found) if part.key not in damaged]
        if groups or not is_noted:
            step, refused = _merge_once(store, found, _first_bytes(groups, config.batch_bytes))
            is_noted = is_noted or not step.num_conflicts
        elif unindexed:
            step, refused = _index_once(store, found, _first_bytes(unindexed, config.batch_bytes))
        else:
            break
        done += step
        damaged |= refused
        if done.num_conflicts > MAX_CONFLICTS:
            raise TransientError(f"{lake_uri}: others publish manifests all the time. Run one compaction at a time.")
        found = snapshot(lake)
    logger.info("compaction of %s: %s", lake_uri, done.line())
    return done


def _finish_claims(store: Store, lake: Lake) -> int:
    """Publish what killed writers had claimed: it is whole, and nobody may ever plan these shards again."""
    num_finished = 0
    for recipe_id, shard_id in claimed_shards(lake.list_sizes("claims")):
        try:
            num_finished += finish_shard(store, lake.uri, recipe_id, shard_id) is not None
        except IntegrityError as error:
            logger.warning("%s", error)  # `dgasr lake check` lists it, and says what to do
    return num_finished


def _groups(found: Snapshot, eligible: set[str], config: CompactionConfig) -> Iterator[list[Part]]:
    """Yield parts of one table and partition that are to become one, at least two at a time, small ones together."""
    folders: dict[str, list[Part]] = defaultdict(list)
    for table, parts in found.parts.items():
        for part in parts if table not in DERIVED_TABLES else ():
            if part.key in eligible and part.size_bytes < config.target_bytes / 2:
                folders[part.key.rpartition("/")[0]].append(part)
    for _, members in sorted(folders.items()):
        remaining = sorted(members, key=lambda part: (part.size_bytes, part.key))
        while len(remaining) > 1:
            group = [part for (part,) in _first_bytes([[part] for part in remaining], config.target_bytes)]
            if len(group) > 1:
                yield group
            remaining = remaining[len(group) :]


def _first_bytes(groups: Sequence[list[Part]], limit_bytes: int) -> list[list[Part]]:
    """Return the first groups that come to so many bytes together."""
    taken, size_bytes = [], 0
    for group in groups:
        taken.append(group)
        size_bytes += sum(part.size_bytes for part in group)
        if size_bytes >= limit_bytes:
            break
    return taken


def _merge_once(store: Store, found: Snapshot, groups: Iterable[list[Part]]) -> tuple[Compaction, set[str]]:
    """Merge some groups and publish the result; also keys of parts that are damaged.

    The parts are named by the manifest after the one that was followed when they were made, or never: that is what
    allows `vacuum` to remove what no manifest names.
    """
    merged: dict[str, Part] = {}
    written: list[Part] = []
    damaged: dict[str, str] = {}
    token = secrets.token_hex(8)
    for group in groups:
        rows, troubles = read_group(found.lake, group, TABLES[group[0].table].names)
        damaged |= troubles
        if len(rows) > 1:
            key = f"{group[0].key.rpartition('/')[0]}/merged.{token}-{len(written):04d}.parquet"
            part, data = encode_part(group[0].table, key, pa.concat_tables(rows.values()))
            write_once(store, f"{found.lake.uri}/{part.key}", data)
            merged |= {member.key: member for member in group if member.key in rows}
            written.append(part)
    commits = {commit_key(commit.recipe_id, commit.shard_id) for commit in found.commits}
    following = _following(found, merged, written, commits)
    if (merged or commits) and not publish_manifest(store, found.lake.uri, following):
        return Compaction(num_conflicts=1), set()
    step = Compaction(
        num_covered=len(commits),
        num_merged=len(merged),
        num_written=len(written),
        merged_bytes=sum(part.size_bytes for part in merged.values()),
        written_bytes=sum(part.size_bytes for part in written),
        damaged=tuple(damaged.values()),
    )
    return step, set(damaged)


def _index_once(store: Store, found: Snapshot, groups: Iterable[list[Part]]) -> tuple[Compaction, set[str]]:
    """Write the postings of some parts of segments and publish them, as `_merge_once` does what it writes."""
    written: dict[str, Part] = {}
    damaged: dict[str, str] = {}
    token = secrets.token_hex(8)
    for group in groups:
        segments, troubles = read_group(found.lake, group, SOURCE_COLUMNS)
        damaged |= troubles
        for key, rows in segments.items():
            written[key], data = encode_part("postings", postings_key(key, token), postings_of(rows))
            write_once(store, f"{found.lake.uri}/{written[key].key}", data)
    kept = [part for part in found.manifest.parts if indexed_key(part.key) not in written]
    manifest = found.manifest.next(
        without_stale([*kept, *written.values()]), found.manifest.covers, found.manifest.dropped
    )
    if written and not publish_manifest(store, found.lake.uri, manifest):
        return Compaction(num_conflicts=1), set()
    return Compaction(num_indexed=len(written), damaged=tuple(damaged.values())), set(damaged)


def _following(found: Snapshot, merged: Mapping[str, Part], written: list[Part], commits: set[str]) -> Manifest:
    """Make the manifest in which the merged parts have given way to the written ones."""
    known = {part.key: part for part in found.manifest.parts}  # those of dropped recipes too, which nobody sees
    known |= {part.key: part for commit in found.commits for part in commit.parts}
    loose = {key for key, part in merged.items() if part.sha256 is None}
    return found.manifest.next(
        without_stale([*(part for key, part in known.items() if key not in merged), *written]),
        found.manifest.covers | commits | loose,
        found.manifest.dropped,
    )
