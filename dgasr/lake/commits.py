"""Commit objects: which parts make up a shard. Keys and JSON in, `Commit` records out, and back. Knows no row.

A part that no commit names does not exist for a reader (docs/decisions/0002-commit-protocol.md).
"""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import date

from dgasr.errors import ConfigError, IntegrityError
from dgasr.lake.schema import SCHEMA_VERSION, TERMS_VERSION

READ_THREADS = 16
"""Small objects fetched at once: on S3 nearly all of their time is waiting."""

SAFE_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
"""What recipe and shard ids may consist of, so that they can stand in a key."""


CLAIM_NAME = re.compile(r"claims/recipe_id=([A-Za-z0-9_-]+)/([A-Za-z0-9_-]+)\.zip")

POSTINGS_NAME = re.compile(r"postings/([^/]+/[^/]+/[^/]+)\.v(\d+)-[0-9a-f-]+\.parquet")
"""The name of a part of segments, `TERMS_VERSION`, and a token: what is lost is made anew under another name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A Parquet file that holds rows of a table.

    Attributes:
        table: the table its rows belong to.
        key: where it lies, from the lake's root.
        num_rows: rows in it; `None` where nobody has noted it.
        size_bytes: its length.
        sha256: digest of its bytes, hex; `None` where nobody has noted it.
    """

    table: str
    key: str
    num_rows: int | None
    size_bytes: int
    sha256: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    """What makes a shard visible.

    Attributes:
        schema_version: version of the tables it was written with.
        recipe_id: the recipe of its rows.
        shard_id: the shard.
        date: its date partition, `YYYY-MM-DD`.
        run_id: the run whose rows these are.
        recordings_digest: blake2b over the sorted recording ids, hex: two plans of one shard must agree in it.
        parts: the files, all of which exist before the commit does.
    """

    schema_version: int
    recipe_id: str
    shard_id: str
    date: str
    run_id: str
    recordings_digest: str
    parts: tuple[Part, ...]

    def to_json(self) -> bytes:
        """Return the bytes of the commit object."""
        return json.dumps(asdict(self), indent=1).encode()


def commit_folder(recipe_id: str | None) -> str:
    """Return where the commits of a recipe lie, or of all recipes where it is `None`."""
    return "commits" if recipe_id is None else f"commits/{_directory(recipe_id)}"


def commit_key(recipe_id: str, shard_id: str) -> str:
    """Return where the commit of a shard lies."""
    return f"{commit_folder(recipe_id)}/{_checked(shard_id, 'shard_id')}.json"


def claim_folder(recipe_id: str) -> str:
    """Return where the claims of a recipe lie."""
    return f"claims/{_directory(recipe_id)}"


def claim_key(recipe_id: str, shard_id: str) -> str:
    """Return where the rows of a shard lie while they are being committed."""
    return f"{claim_folder(recipe_id)}/{_checked(shard_id, 'shard_id')}.zip"


def claimed_shards(keys: Iterable[str]) -> list[tuple[str, str]]:
    """Return recipe and shard of the claims among some keys; a claim that is only being written is none."""
    return [(match[1], match[2]) for key in keys if (match := CLAIM_NAME.fullmatch(key))]


def part_key(table: str, recipe_id: str, day: date, shard_id: str) -> str:
    """Return where a shard's part of a table lies."""
    return f"{table}/{_directory(recipe_id)}/date={day.isoformat()}/{_checked(shard_id, 'shard_id')}.parquet"


def loose_key(table: str, run_id: str, day: date) -> str:
    """Return where the rows lie that one execution wrote to a table without shards."""
    return f"{table}/date={day.isoformat()}/{_checked(run_id, 'run_id')}.parquet"


def postings_key(segments_key: str, token: str) -> str:
    """Return where the postings of a part of segments lie.

    Args:
        segments_key: key of the part.
        token: hexadecimal digits and `-`, new for each attempt.
    """
    part = segments_key.removeprefix("segments/").removesuffix(".parquet")
    return f"postings/{part}.v{TERMS_VERSION}-{token}.parquet"


def indexed_key(key: str) -> str | None:
    """Return the key of the part of segments that a file by its name has the postings of, `None` where it has none."""
    match = POSTINGS_NAME.fullmatch(key)
    return f"segments/{match[1]}.parquet" if match else None


def has_our_terms(key: str) -> bool:
    """Say whether a file by its name has postings of the terms that this dgasr makes."""
    match = POSTINGS_NAME.fullmatch(key)
    return match is not None and int(match[2]) == TERMS_VERSION


def parse_commit(data: bytes, where: str) -> Commit:
    """Read a commit object.

    Raises:
        IntegrityError: it is not one, or a newer dgasr wrote it.
    """
    try:
        fields = json.loads(data)
        version = fields["schema_version"]
        if version > SCHEMA_VERSION:
            raise IntegrityError(
                f"{where}: has schema version {version}, and this dgasr reads up to {SCHEMA_VERSION}. Upgrade dgasr."
            )
        return Commit(**(fields | {"parts": tuple(Part(**part) for part in fields["parts"])}))
    except (ValueError, TypeError, KeyError) as error:
        raise IntegrityError(
            f"{where}: is no commit of a lake ({error!r}). Remove the file if a stranger put it there; "
            "otherwise restore it from a copy."
        ) from error


def _directory(recipe_id: str) -> str:
    """Return the hive partition of a recipe."""
    return f"recipe_id={_checked(recipe_id, 'recipe_id')}"


def _checked(value: str, name: str) -> str:
    """Refuse an id that cannot stand in a key."""
    if not SAFE_ID.fullmatch(value):
        raise ConfigError(f"{name} {value!r} cannot stand in a key: use letters, digits, '_' and '-' only.")
    return value
