"""What nobody needs any more is removed from a lake, after a grace period, while others write and read.

Proof: docs/decisions/0016-manifests.md
"""

import logging
import secrets
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from dgasr.errors import ConfigError, TransientError
from dgasr.lake.commits import READ_THREADS, claim_folder, commit_folder
from dgasr.lake.garbage import Garbage, GarbageKind, Inventory, find_garbage, take_inventory
from dgasr.lake.location import Lake, open_existing_lake
from dgasr.lake.manifests import MAX_CONFLICTS, publish_manifest, read_manifest
from dgasr.lake.parts import Store, write_once
from dgasr.lake.schema import RECIPE_TABLES
from dgasr.lake.snapshot import recipe_of, snapshot
from dgasr.lake.superseded import SupersededRecipe, superseded_recipes

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class VacuumConfig:
    """What may go, and when.

    Attributes:
        grace_s: how long a question may take that was begun before a compaction, and how long a writer may pause, s;
            nothing that either may still need is removed.
        recipe_grace_s: how long all of a recipe's transcripts must have had later ones before its files may go, s.
        keep_superseded: keep the files of such recipes for ever.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    grace_s: float = 2 * 24 * 3600.0
    recipe_grace_s: float = 30 * 24 * 3600.0
    keep_superseded: bool = False

    def __post_init__(self) -> None:
        """Refuse times that have not come yet."""
        if self.grace_s < 0 or self.recipe_grace_s < 0:
            raise ConfigError("VacuumConfig: grace_s and recipe_grace_s are durations, 0 s or more.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Vacuum:
    """What may go, or what went.

    Attributes:
        garbage: the files.
        superseded: recipes that nobody needs any more; their files are hidden at once and go a grace period later.
        is_dry_run: nothing was changed.
    """

    garbage: tuple[Garbage, ...]
    superseded: tuple[SupersededRecipe, ...]
    is_dry_run: bool

    @property
    def size_bytes(self) -> int:
        """Length of all the files, bytes."""
        return sum(item.size_bytes for item in self.garbage)

    def by_kind(self) -> dict[GarbageKind, tuple[int, int]]:
        """Count the files of each kind, and their bytes."""
        numbers, sizes = Counter[GarbageKind](), Counter[GarbageKind]()
        for item in self.garbage:
            numbers[item.kind] += 1
            sizes[item.kind] += item.size_bytes
        return {kind: (numbers[kind], sizes[kind]) for kind in sorted(numbers)}

    def line(self) -> str:
        """Say it in one line."""
        verb = "would be" if self.is_dry_run else "were"
        hidden = f", {len(self.superseded)} superseded recipes {verb} hidden" if self.superseded else ""
        return f"{len(self.garbage)} files ({self.size_bytes / 1e6:.1f} MB) {verb} removed{hidden}"


def plan_vacuum(lake_uri: str, config: VacuumConfig) -> Vacuum:
    """Say what `vacuum` would do, by this machine's clock; changes nothing.

    Raises:
        ConfigError: no lake lies there.
        IntegrityError: the lake contradicts itself.
        TransientError: the store does not answer.
    """
    lake, now = open_existing_lake(lake_uri), datetime.now(UTC)
    found = take_inventory(lake, now, timedelta(seconds=config.grace_s))
    return Vacuum(garbage=tuple(find_garbage(found)), superseded=tuple(_superseded(lake, now, config)), is_dry_run=True)


def vacuum(store: Store, lake_uri: str, config: VacuumConfig) -> Vacuum:
    """Remove what nobody needs any more; may be killed and started again at any time.

    Args:
        store: where the lake lies.
        lake_uri: the lake.
        config: what may go, and when.

    Returns:
        What was removed.

    Raises:
        ConfigError: no lake lies there, or it cannot be written.
        IntegrityError: the lake contradicts itself.
        TransientError: the store does not answer, or others published all the time.
    """
    lake = open_existing_lake(lake_uri)
    now = _store_time(store, lake)
    superseded = _superseded(lake, now, config)
    for _ in range(MAX_CONFLICTS):
        found = take_inventory(lake, now, timedelta(seconds=config.grace_s))
        garbage = tuple(find_garbage(found))
        if _fence(store, found, garbage, superseded):
            break
    else:
        raise TransientError(f"{lake_uri}: others publish manifests all the time. Stop them, or try again later.")
    _delete(store, lake, (item.key for item in garbage if item.kind != "dropped"))
    _remove_dropped(store, lake, found.base.dropped & found.manifest.dropped)
    done = Vacuum(garbage=garbage, superseded=tuple(superseded), is_dry_run=False)
    logger.info("vacuum of %s: %s", lake_uri, done.line())
    return done


def _superseded(lake: Lake, now: datetime, config: VacuumConfig) -> list[SupersededRecipe]:
    """List the recipes that have been superseded for long enough."""
    if config.keep_superseded:
        return []
    before = now - timedelta(seconds=config.recipe_grace_s)
    return [recipe for recipe in superseded_recipes(snapshot(lake, ("recordings",))) if recipe.since < before]


def _store_time(store: Store, lake: Lake) -> datetime:
    """Ask the store what time it is: files bear its times, and this machine's clock may be wrong."""
    key = f"staging/clock/{secrets.token_hex(8)}"
    write_once(store, f"{lake.uri}/{key}", b"")
    written = lake.list_files("staging/clock").get(key)
    store.delete(f"{lake.uri}/{key}")
    if written is None:
        raise TransientError(f"{lake.uri}/{key}: was written, and is not listed. Try again later.")
    return written.mtime.astimezone(UTC)


def _fence(store: Store, found: Inventory, garbage: Iterable[Garbage], superseded: list[SupersededRecipe]) -> bool:
    """Take the next number, so that no compaction can name parts that it wrote before the inventory was taken.

    Returns:
        Whether what the inventory says still holds; where not, it must be taken anew.
    """
    dropped = found.manifest.dropped | {recipe.recipe_id for recipe in superseded}
    if dropped == found.manifest.dropped and not any(item.kind == "unnamed" for item in garbage):
        return True
    return publish_manifest(
        store, found.lake.uri, found.manifest.next(found.manifest.parts, found.manifest.covers, dropped)
    )


def _delete(store: Store, lake: Lake, keys: Iterable[str]) -> None:
    """Delete files, those of one folder from the last to the first: a staged part loses its mark of wholeness first."""
    with ThreadPoolExecutor(READ_THREADS) as pool:
        list(pool.map(store.delete, [f"{lake.uri}/{key}" for key in sorted(keys, reverse=True)]))


def _remove_dropped(store: Store, lake: Lake, recipes: frozenset[str]) -> None:
    """Remove all files of recipes that nobody has seen for the grace period, and then what manifests say of them.

    Parts go before commits: a commit without parts is hidden as long as the recipe is dropped, and parts that nobody
    committed would lie in the way of whoever transcribes with the recipe again.
    """
    if not recipes:
        return
    for recipe_id in sorted(recipes):
        parts = [f"{table}/recipe_id={recipe_id}" for table in RECIPE_TABLES]
        for folders in ([*parts, claim_folder(recipe_id)], [commit_folder(recipe_id)]):
            while keys := [key for folder in folders for key in lake.list_sizes(folder)]:
                _delete(store, lake, keys)
    for _ in range(MAX_CONFLICTS):
        manifest = read_manifest(lake)
        following = manifest.next(
            [part for part in manifest.parts if recipe_of(part.key) not in recipes],
            {key for key in manifest.covers if recipe_of(key) not in recipes},
            manifest.dropped - recipes,
        )
        if publish_manifest(store, lake.uri, following):
            return
    raise TransientError(f"{lake.uri}: others publish manifests all the time. Stop them, or try again later.")
