"""What nobody needs any more is removed from a lake, after a grace period, while others write and read.

Delta Lake removes files of its tables; what runs staged, and recipes that others superseded, are seen to here.
"""

import logging
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import ClassVar

from deltalake import DeltaTable

from dgasr.errors import ConfigError
from dgasr.lake.location import Lake, open_existing_lake, storage_error
from dgasr.lake.schema import TABLES
from dgasr.lake.table import delta_errors, open_table
from dgasr.lake.upkeep import forget_partition
from dgasr.lake.views import connect

logger = logging.getLogger(__name__)

FOLLOWED = """
    with held as (
        select recipe_id, recording_id, transcribed_at as last_at, status = 'rejected' as is_rejected from recordings
    ),
    followed as (
        select held.recipe_id, held.recording_id, min(later.last_at) as followed_at
        from held
        left join held as later
            on later.recording_id = held.recording_id
            and later.recipe_id <> held.recipe_id
            and later.last_at > held.last_at
            and (held.is_rejected or not later.is_rejected)
        group by all
    )
    select recipe_id, count(*)::bigint, max(followed_at)
    from followed
    group by recipe_id
    having count(*) = count(followed_at)
    order by recipe_id
"""
"""A transcript is followed once another recipe has a later one of the same version of the object; a rejection follows
no transcript."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VacuumConfig:
    """What may go, and when.

    Attributes:
        grace_s: how long a question may take that was begun before a compaction, and how long a writer may pause, s, in
            whole hours, rounded up; nothing that either may still need is removed.
        recipe_grace_s: how long all of a recipe's transcripts must have had later ones before its rows may go, s.
        keep_superseded: keep the rows of such recipes for ever.
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
class SupersededRecipe:
    """A recipe that nothing is seen of in `recordings_latest`."""

    recipe_id: str
    num_recordings: int
    since: datetime
    """When the last of them got a later transcript."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Vacuum:
    """What may go, or what went."""

    unused: tuple[str, ...]
    """Keys of files of tables that no version within the grace period names."""
    staged: tuple[str, ...]
    """Keys of features and notes of runs that ended or died."""
    superseded: tuple[SupersededRecipe, ...]
    """Recipes whose rows go; their files follow a grace period later."""
    is_dry_run: bool
    """Nothing was changed."""

    def line(self) -> str:
        """Say it in one line."""
        verb = "would be" if self.is_dry_run else "were"
        return (
            f"{len(self.unused)} unused files, {len(self.staged)} staged files and the rows of {len(self.superseded)} "
            f"superseded recipes {verb} removed"
        )


def vacuum(lake_uri: str, config: VacuumConfig, *, is_dry_run: bool = False) -> Vacuum:
    """Remove what nobody needs any more, or say what that is; may be killed and started again at any time.

    Raises:
        ConfigError: no lake lies there, or it cannot be written.
        IntegrityError: the lake cannot be read.
        TransientError: the store does not answer, or others replaced the same files all the time.
    """
    lake, now = open_existing_lake(lake_uri), datetime.now(UTC)
    superseded = [] if config.keep_superseded else _superseded(lake_uri, now - timedelta(seconds=config.recipe_grace_s))
    for recipe in () if is_dry_run else superseded:
        forget_partition(lake_uri, f"recipe_id={recipe.recipe_id}")
    unused: list[str] = []
    for name in TABLES:
        if (table := open_table(lake, name)) is not None:
            unused += [f"{name}/{key}" for key in _vacuum(lake, name, table, config.grace_s, is_dry_run)]
    staged = _staged(lake, now - timedelta(seconds=config.grace_s))
    for key in () if is_dry_run else staged:
        with suppress(FileNotFoundError):
            try:
                lake.filesystem.delete_file(lake.path(key))
            except FileNotFoundError:
                raise
            except OSError as error:
                raise storage_error(lake.uri, error) from error
    done = Vacuum(unused=tuple(unused), staged=tuple(staged), superseded=tuple(superseded), is_dry_run=is_dry_run)
    logger.info("vacuum of %s: %s", lake_uri, done.line())
    return done


def unused_files(lake: Lake, grace_s: float) -> list[str]:
    """List the files that `vacuum` would remove from the tables, by key."""
    tables = {name: table for name in TABLES if (table := open_table(lake, name)) is not None}
    return [f"{name}/{key}" for name, table in tables.items() for key in _vacuum(lake, name, table, grace_s, True)]


def _vacuum(lake: Lake, name: str, table: DeltaTable, grace_s: float, is_dry_run: bool) -> list[str]:
    """Remove what no version of a table within the grace period names, files of killed writers too."""
    with delta_errors(f"{lake.uri}/{name}"):
        return table.vacuum(
            retention_hours=ceil(grace_s / 3600), dry_run=is_dry_run, enforce_retention_duration=False, full=True
        )


def _superseded(lake_uri: str, before: datetime) -> list[SupersededRecipe]:
    """List the recipes of which every transcript has a later one since long."""
    with connect(lake_uri) as connection:
        rows = connection.execute(FOLLOWED).fetchall()
    found = [SupersededRecipe(recipe_id=row[0], num_recordings=row[1], since=row[2]) for row in rows]
    return [recipe for recipe in found if recipe.since < before]


def _staged(lake: Lake, before: datetime) -> list[str]:
    """List what lies in staging for shards and runs of which nothing was written for long.

    In reverse order, so that a staged part loses its mark of wholeness first.
    """
    owners: dict[tuple[str, ...], list[str]] = defaultdict(list)
    files = lake.list_files("staging")
    for key in files:
        owners[tuple(key.split("/")[1:3])].append(key)
    settled = [keys for keys in owners.values() if all(files[key].mtime < before for key in keys)]
    return sorted((key for keys in settled for key in keys), reverse=True)
