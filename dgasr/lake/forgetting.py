"""A partition taken out of a lake, so that it can be filled anew: the way out where a file is lost and has no copy."""

import re
from datetime import date

from dgasr.errors import ConfigError, TransientError
from dgasr.lake.commits import claim_folder, claimed_shards, commit_folder, commit_key, parse_commit
from dgasr.lake.location import Lake, open_existing_lake
from dgasr.lake.manifests import MAX_CONFLICTS, publish_manifest, read_manifest
from dgasr.lake.parts import Store
from dgasr.lake.schema import LOOSE_TABLES, RECIPE_TABLES

PARTITION = re.compile(rf"(?:recipe_id=([A-Za-z0-9_-]+)|({'|'.join(LOOSE_TABLES)}))/date=(\d{{4}}-\d\d-\d\d)")


def forget_partition(store: Store, lake_uri: str, partition: str) -> list[str]:
    """Remove all files of a partition, whole or not, so that the ledger holds nothing of it.

    Until it is done, readers of the whole lake are refused, as they are by the damage that it cures. Nothing may write
    to the recipe meanwhile. It can be killed and started again.

    Args:
        store: where the lake lies.
        lake_uri: the lake.
        partition: `recipe_id=…/date=…`, or `runs/date=…` and the like.

    Returns:
        Keys of the files that were removed.

    Raises:
        ConfigError: no lake lies there, or this is no partition.
        IntegrityError: manifest or commits cannot be read.
        TransientError: the store does not answer.
    """
    match = PARTITION.fullmatch(partition)
    if not match:
        raise ConfigError(f"{partition}: is no partition. Write recipe_id=…/date=YYYY-MM-DD, or runs/date=YYYY-MM-DD.")
    lake, recipe_id, day = open_existing_lake(lake_uri), match[1], date.fromisoformat(match[3])
    folders = [f"{table}/{partition}" for table in RECIPE_TABLES] if recipe_id else [partition]
    claims, commits = _shards_of(lake, recipe_id, day) if recipe_id else ([], [])
    _uncover(store, lake, tuple(f"{folder}/" for folder in folders), frozenset(commits))
    parts = [key for folder in folders for key in lake.list_sizes(folder)]
    # Commits last: by them a second call finds what the first one left, and parts that nobody committed would lie in
    # the way of whoever writes the shard again.
    for key in (*parts, *claims, *commits):
        store.delete(f"{lake.uri}/{key}")
    return [*parts, *claims, *commits]


def _shards_of(lake: Lake, recipe_id: str, day: date) -> tuple[list[str], list[str]]:
    """List the claims and the commits of the shards that lie in a partition."""
    commits = [
        key
        for key in lake.list_sizes(commit_folder(recipe_id))
        if key.endswith(".json") and parse_commit(lake.read(key), f"{lake.uri}/{key}").date == day.isoformat()
    ]
    claims = [
        key
        for key in lake.list_sizes(claim_folder(recipe_id))
        if any(commit_key(*shard) in commits for shard in claimed_shards([key]))
    ]
    return claims, commits


def _uncover(store: Store, lake: Lake, folders: tuple[str, ...], commits: frozenset[str]) -> None:
    """Publish a manifest that says nothing of a partition any more."""
    for _ in range(MAX_CONFLICTS):
        manifest = read_manifest(lake)
        parts = [part for part in manifest.parts if not part.key.startswith(folders)]
        covers = {key for key in manifest.covers - commits if not key.startswith(folders)}
        if len(parts) == len(manifest.parts) and covers == manifest.covers:
            return
        if publish_manifest(store, lake.uri, manifest.next(parts, covers, manifest.dropped)):
            return
    raise TransientError(f"{lake.uri}: others publish manifests all the time. Stop them, or try again later.")
