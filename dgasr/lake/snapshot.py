"""What readers of a lake see at one moment: a lake in, the parts of every table out. Reads no row.

The highest manifest says most of it, in one object; commits that it does not cover, and loose parts, are added.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType

from dgasr.errors import IntegrityError
from dgasr.lake.commits import (
    READ_THREADS,
    SAFE_ID,
    Commit,
    Part,
    commit_folder,
    has_our_terms,
    indexed_key,
    parse_commit,
)
from dgasr.lake.location import Lake
from dgasr.lake.manifests import Manifest, read_manifest
from dgasr.lake.schema import DERIVED_TABLES, LOOSE_TABLES, RECIPE_TABLES, TABLES

MERGED_NAME = re.compile(r"merged\.[0-9a-f-]+\.parquet")
"""The dot keeps merged parts apart from those of shards and runs: their ids have none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """What readers see of a lake.

    Attributes:
        lake: the lake, open for reading.
        parts: the parts of each table that was asked for, by table; no other file of the lake is to be read. Parts
            that one execution wrote alone (`runs`, …) have no digest and no number of rows before they are merged.
            Postings are those of parts of segments that readers see, one for each at most.
        manifest: the manifest that was followed; its number is 0 where there is none.
        commits: what was committed since, and is not covered by the manifest.
        schema_versions: versions of the tables that the parts were written with.
    """

    lake: Lake
    parts: Mapping[str, tuple[Part, ...]]
    manifest: Manifest
    commits: tuple[Commit, ...]
    schema_versions: frozenset[int]


def snapshot(lake: Lake, tables: Sequence[str] = tuple(TABLES), recipe_id: str | None = None) -> Snapshot:
    """Look up what readers see now, and that each part is there in its full length.

    Costs a listing of `manifests/`, `commits/` and each table, one manifest, and one small object for every commit that
    the manifest does not cover.

    Args:
        lake: the lake; nothing need lie there yet.
        tables: tables whose parts are wanted; fewer cost fewer requests.
        recipe_id: the recipe whose recordings and segments are wanted, `None` for all recipes.

    Raises:
        IntegrityError: manifest, commits and parts contradict each other, or a newer dgasr wrote them.
        ConfigError: access is denied.
        TransientError: the store does not answer.
    """
    with ThreadPoolExecutor(READ_THREADS) as pool:
        reading = pool.submit(read_manifest, lake)
        has_shards = any(table in RECIPE_TABLES for table in tables)
        listing = pool.submit(lake.list_sizes, commit_folder(recipe_id)) if has_shards else None
        sizes = {table: pool.submit(lake.list_sizes, table) for table in tables}
        manifest = reading.result()
        keys = [key for key in (listing.result() if listing else {}) if key.endswith(".json")]
        keys = [key for key in keys if key not in manifest.covers and recipe_of(key) not in manifest.dropped]
        commits = tuple(
            parse_commit(data, f"{lake.uri}/{key}") for key, data in zip(keys, pool.map(lake.read, keys), strict=True)
        )
    noted = [part for part in manifest.parts if recipe_of(part.key) not in manifest.dropped]
    committed = [*noted, *(part for commit in commits for part in commit.parts)]
    if recipe_id is not None:
        committed = [part for part in committed if recipe_of(part.key) in (None, recipe_id)]
    parts = {}
    for table in tables:
        named = [part for part in committed if part.table == table]
        found = sizes[table].result()
        if table in DERIVED_TABLES:
            parts[table] = tuple(usable_postings(committed, found))
        else:
            parts[table] = (*_present(lake, table, named, found), *_loose_parts(table, found, named, manifest.covers))
    return Snapshot(
        lake=lake,
        parts=MappingProxyType(parts),
        manifest=manifest,
        commits=commits,
        schema_versions=frozenset([manifest.schema_version, *(commit.schema_version for commit in commits)]),
    )


def _present(lake: Lake, table: str, parts: list[Part], sizes: dict[str, int]) -> list[Part]:
    """Return parts that are all there.

    Raises:
        IntegrityError: one is missing or has another length than was noted of it.
    """
    if any(sizes.get(part.key) != part.size_bytes for part in parts):
        sizes = lake.list_sizes(table)  # a shard that was committed after the first listing is no contradiction
    for part in parts:
        if sizes.get(part.key) != part.size_bytes:
            found = f"has {sizes[part.key]} bytes" if part.key in sizes else "is missing"
            raise IntegrityError(
                f"{lake.uri}/{part.key}: {found}, and its commit names {part.size_bytes} bytes. "
                "Someone changed the lake after the commit: restore the file from a copy. "
                "`dgasr lake check` lists all that is damaged, and what to do where there is no copy."
            )
    return parts


def _loose_parts(table: str, sizes: dict[str, int], named: list[Part], covers: frozenset[str]) -> list[Part]:
    """Return the parts of a table without shards that no manifest has merged."""
    if table not in LOOSE_TABLES:
        return []
    merged = {part.key for part in named}
    return [
        Part(table=table, key=key, num_rows=None, size_bytes=size, sha256=None)
        for key, size in sizes.items()
        if is_own_part(key) and key not in merged and key not in covers
    ]


def usable_postings(committed: Iterable[Part], sizes: Mapping[str, int]) -> list[Part]:
    """Return the postings that lie there whole, of the terms that we make, and of parts of segments that readers see.

    What is lost or outdated is left out: the text says the same.

    Args:
        committed: all parts that readers see, postings too.
        sizes: length of the files under `postings`, bytes, by key.
    """
    committed = list(committed)
    segments = {part.key for part in committed if part.table == "segments"}
    usable = [part for part in committed if has_our_terms(part.key) and sizes.get(part.key) == part.size_bytes]
    by_segments = {indexed_key(part.key): part for part in usable}
    return [part for key, part in by_segments.items() if key in segments]


def is_own_part(key: str) -> bool:
    """Say whether a file is by its name a part that a shard or run wrote, whole: no merged part, and no stranger."""
    name, dot, ending = key.rpartition("/")[2].partition(".")
    return bool(SAFE_ID.fullmatch(name)) and dot + ending == ".parquet"


def is_merged_part(key: str) -> bool:
    """Say whether a file is by its name a part that a compaction wrote."""
    return bool(MERGED_NAME.fullmatch(key.rpartition("/")[2]))


def recipe_of(key: str) -> str | None:
    """Return the recipe that a key names, `None` where it names none."""
    return next((piece.removeprefix("recipe_id=") for piece in key.split("/") if piece.startswith("recipe_id=")), None)
