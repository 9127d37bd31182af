"""Files of a lake that nobody needs any more: listings and manifests in, names out. Reads no row, removes nothing.

Why each of them may go: docs/decisions/0016-manifests.md
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import pyarrow.fs

from dgasr.lake.commits import claimed_shards, commit_key, indexed_key
from dgasr.lake.location import FOLDERS, Lake
from dgasr.lake.manifests import Manifest, manifest_key, manifest_numbers, parse_manifest, read_manifest
from dgasr.lake.schema import LOOSE_TABLES, TABLES
from dgasr.lake.snapshot import is_merged_part, is_own_part, recipe_of

GarbageKind = Literal["staged", "replaced", "unnamed", "orphan", "claim", "manifest", "unfinished", "dropped"]

MEANINGS: dict[GarbageKind, str] = {
    "staged": "features and notes of runs that ended or died",
    "replaced": "parts whose rows lie in a merged part",
    "unnamed": "merged parts, and postings, that no manifest names",
    "orphan": "parts of shards that were never committed",
    "claim": "claims of shards that are committed",
    "manifest": "manifests that others followed",
    "unfinished": "files that a killed writer began",
    "dropped": "files of superseded recipes",
}
"""Why a file is garbage, for a person."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Garbage:
    """A file that may go."""

    kind: GarbageKind
    key: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Inventory:
    """Everything that lies in a lake, and what snapshots of the last while may still refer to.

    Attributes:
        lake: the lake.
        files: by key; listed before the manifests were read, which is what makes `unnamed` parts safe to remove.
        manifest: the manifest that readers follow.
        base: the manifest that the oldest snapshot still in use may follow; an empty one where it had none.
        referenced: keys of all parts that `base`, `manifest` and those between them name.
        settled_before: files that were last written before are no one's present work.
    """

    lake: Lake
    files: Mapping[str, pyarrow.fs.FileInfo]
    manifest: Manifest
    base: Manifest
    referenced: frozenset[str]
    settled_before: datetime

    def is_settled(self, key: str) -> bool:
        """Say whether a file was last written long ago."""
        return bool(self.files[key].mtime < self.settled_before)


def take_inventory(lake: Lake, now: datetime, grace: timedelta) -> Inventory:
    """List a lake whole.

    Args:
        lake: the lake.
        now: the present time as the store knows it, with a time zone.
        grace: how long a snapshot may be in use, and a writer may pause between two requests.

    Raises:
        IntegrityError: a manifest cannot be read.
        TransientError: the store does not answer.
    """
    with ThreadPoolExecutor(len(FOLDERS)) as pool:
        files = {key: info for found in pool.map(lake.list_files, FOLDERS) for key, info in found.items()}
    latest = read_manifest(lake)
    numbers = manifest_numbers(files)
    old = [number for number in numbers if files[manifest_key(number)].mtime <= now - grace]
    since = [number for number in numbers if not old or number >= old[-1]]
    # Those that were published after the listing have followers too.
    since += range(max(numbers, default=0) + 1, latest.number + 1)
    manifests = {number: _manifest(lake, number) for number in since}
    base = manifests[old[-1]] if old else Manifest()
    named = {part.key for manifest in manifests.values() for part in manifest.parts}
    return Inventory(
        lake=lake,
        files=files,
        manifest=latest,
        base=base,
        referenced=frozenset(named),
        settled_before=now - grace,
    )


def find_garbage(found: Inventory) -> Iterator[Garbage]:
    """Yield the files that nobody needs, and that nobody who looked within the grace period refers to."""
    kinds = {**dict(_staged(found)), **dict(_unfinished(found))}
    for key in found.files:
        kind = kinds.get(key) or _kind_of(found, key)
        if kind:
            yield Garbage(kind=kind, key=key, size_bytes=found.files[key].size)


def foreign_files(found: Inventory) -> list[str]:
    """List files among the parts, commits and manifests that no dgasr wrote; they are nobody's to remove."""
    return [
        key
        for key in found.files
        if not key.startswith("staging/")
        and not key.rpartition("/")[2].startswith(".")
        and not is_own_part(key)
        and not is_merged_part(key)
        and not indexed_key(key)
        and not manifest_numbers([key])
        and not claimed_shards([key])
        and not (key.startswith("commits/") and key.endswith(".json"))
    ]


def _manifest(lake: Lake, number: int) -> Manifest:
    key = manifest_key(number)
    return parse_manifest(lake.read(key), f"{lake.uri}/{key}")


def _kind_of(found: Inventory, key: str) -> GarbageKind | None:
    """Say why a file may go, `None` where it may not."""
    table, recipe_id = key.partition("/")[0], recipe_of(key)
    if recipe_id in found.manifest.dropped:
        return "dropped" if recipe_id in found.base.dropped else None
    if table in TABLES and key not in found.referenced:
        return _kind_of_part(found, key, table)
    if table == "claims":
        is_committed = any(commit_key(*shard) in found.files for shard in claimed_shards([key]))
        return "claim" if is_committed and found.is_settled(key) else None
    if table == "manifests":
        numbers = manifest_numbers([key])
        return "manifest" if numbers and numbers[0] < found.base.number else None
    return None


def _kind_of_part(found: Inventory, key: str, table: str) -> GarbageKind | None:
    """Say why a part that no manifest in use names may go."""
    if is_merged_part(key) or indexed_key(key):
        return "unnamed"
    if not is_own_part(key):
        return None
    if table in LOOSE_TABLES:
        return "replaced" if key in found.base.covers else None
    recipe_id, shard_id = recipe_of(key) or "", key.rpartition("/")[2].removesuffix(".parquet")
    commit = commit_key(recipe_id, shard_id)
    if commit in found.base.covers:
        return "replaced"
    is_begun = commit in found.files or f"claims/recipe_id={recipe_id}/{shard_id}.zip" in found.files
    return None if is_begun or not found.is_settled(key) else "orphan"


def _staged(found: Inventory) -> Iterator[tuple[str, GarbageKind]]:
    """Yield what lies in staging for shards and runs of which nothing was written for long."""
    owners: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for key in found.files:
        if key.startswith("staging/"):
            owners[tuple(key.split("/")[1:3])].append(key)
    for keys in owners.values():
        if all(found.is_settled(key) for key in keys):
            yield from ((key, "staged") for key in keys)


def _unfinished(found: Inventory) -> Iterator[tuple[str, GarbageKind]]:
    """Yield hidden files, in which a folder's store writes what is not whole yet."""
    for key in found.files:
        if key.rpartition("/")[2].startswith(".") and found.is_settled(key):
            yield key, "unfinished"
