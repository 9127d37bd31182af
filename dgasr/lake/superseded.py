"""Recipes whose every transcript has a later one by another recipe: a snapshot in, recipes out. Removes nothing."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import duckdb
import pyarrow as pa

from dgasr.lake.commits import READ_THREADS
from dgasr.lake.datasets import read_part
from dgasr.lake.schema import table_schema
from dgasr.lake.snapshot import Snapshot, recipe_of

COLUMNS = ("recipe_id", "recording_id", "status", "transcribed_at")

QUERY = """
    with held as (
        select
            recipe_id,
            recording_id,
            max(transcribed_at) as last_at,
            bool_and(status = 'rejected') as is_rejected
        from rows
        group by all
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
class SupersededRecipe:
    """A recipe that nothing is seen of in `recordings_latest`.

    Attributes:
        recipe_id: the recipe.
        num_recordings: recordings that the lake holds for it.
        since: when the last of them got a later transcript.
    """

    recipe_id: str
    num_recordings: int
    since: datetime


def superseded_recipes(found: Snapshot) -> list[SupersededRecipe]:
    """List the recipes of which every transcript has a later one.

    Args:
        found: what readers see of the lake, with `recordings` among its tables.

    Raises:
        IntegrityError: a part cannot be read.
        TransientError: the store does not answer.
    """
    parts = found.parts["recordings"]
    if len({recipe_of(part.key) for part in parts}) < 2:
        return []
    schema = pa.schema([table_schema("recordings").field(name) for name in COLUMNS])
    with ThreadPoolExecutor(READ_THREADS) as pool:
        tables = list(pool.map(partial(read_part, found.lake, columns=COLUMNS), parts))
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.register("rows", pa.concat_tables([schema.empty_table(), *tables]))
        answer = connection.execute(QUERY).fetchall()
    return [SupersededRecipe(recipe_id=row[0], num_recordings=row[1], since=row[2]) for row in answer]
