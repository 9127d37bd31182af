"""Rows in, Parquet parts and a commit out: a shard becomes visible whole, once, whoever runs twice or is killed.

The store is passed in. The protocol and why it holds: docs/decisions/0002-commit-protocol.md.
"""

import hashlib
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from dgasr.errors import ConfigError, IntegrityError, ObjectError, ObjectMissingError
from dgasr.lake.checks import check_shard, partition_date
from dgasr.lake.commits import Commit, Part, claim_key, commit_key, loose_key, parse_commit, part_key
from dgasr.lake.encoding import encode_rows
from dgasr.lake.location import lake_uri_of
from dgasr.lake.rows import Row, ShardRows
from dgasr.lake.schema import SCHEMA_VERSION


class Store(Protocol):
    """What a commit asks of the object store; `dgasr.store.objects` has it."""

    def read_bytes(self, uri: str) -> bytes:
        """Read an object whole; raises `ObjectMissingError` where none lies."""

    def write_if_absent(self, uri: str, data: bytes) -> bool:
        """Write an object whole unless one lies there; return whether it was written."""

    def delete(self, uri: str) -> None:
        """Delete an object."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CommitResult:
    """What became of a call to `commit_shard`.

    Attributes:
        commit: what readers see of the shard.
        is_mine: these are the rows of the call; False where another writer's rows were there first.
    """

    commit: Commit
    is_mine: bool


def commit_shard(store: Store, lake_uri: str, rows: ShardRows) -> CommitResult:
    """Make a shard's rows visible, all at once, unless the shard is already.

    Args:
        store: where the lake lies.
        lake_uri: the lake's root.
        rows: everything the shard yields.

    Returns:
        The commit that readers see, and whether it holds these rows.

    Raises:
        ConfigError: the lake cannot be written.
        IntegrityError: the rows break an invariant, or the shard lies there with other recordings.
        TransientError: storage failed; the same call may be made again.
    """
    check_shard(rows)
    commit, files = _encode(rows)
    claim_uri = f"{lake_uri_of(lake_uri)}/{claim_key(rows.recipe_id, rows.shard_id)}"
    visible = finish_shard(store, lake_uri, rows.recipe_id, rows.shard_id)
    if visible is None:
        write_once(store, claim_uri, _pack(commit, files))
        visible = finish_shard(store, lake_uri, rows.recipe_id, rows.shard_id)
    if visible is None:
        raise IntegrityError(f"{claim_uri}: vanished without a commit. Keep other programs out of the lake.")
    if visible.recordings_digest != commit.recordings_digest:
        raise IntegrityError(
            f"{lake_uri}: shard {rows.shard_id} is committed with other recordings than these. "
            "A shard's id must be made from its recordings and nothing else."
        )
    return CommitResult(commit=visible, is_mine=visible == commit)


def finish_shard(store: Store, lake_uri: str, recipe_id: str, shard_id: str) -> Commit | None:
    """Complete what an earlier writer began, so that its work need not be done again.

    Returns:
        The shard's commit, or `None` where neither a commit nor a claim lies.

    Raises:
        IntegrityError: commit or claim cannot be read.
        TransientError: storage failed.
    """
    lake_uri = lake_uri_of(lake_uri)
    claim_uri = f"{lake_uri}/{claim_key(recipe_id, shard_id)}"
    try:
        claim = store.read_bytes(claim_uri)
    except ObjectMissingError:
        return _read_commit(store, lake_uri, recipe_id, shard_id)
    commit = _read_commit(store, lake_uri, recipe_id, shard_id)
    if commit is None:
        commit = _publish(store, lake_uri, claim, claim_uri)
    # From here on the claim says nothing new: every object it holds has lain there since before the commit.
    store.delete(claim_uri)
    return commit


def write_run(store: Store, lake_uri: str, row: Row) -> bool:
    """Write the row of an execution; returns False where one of this `run_id` lies already."""
    return _write_loose(store, lake_uri, "runs", [row], row["started_at"])


def write_evaluation(store: Store, lake_uri: str, row: Row) -> bool:
    """Write the row of an evaluation; returns False where one of this `run_id` lies already."""
    return _write_loose(store, lake_uri, "evaluations", [row], row["started_at"])


def write_presence(store: Store, lake_uri: str, rows: Sequence[Row]) -> bool:
    """Write what one run noticed of objects that are gone or back, all at once; nothing is written without rows.

    Returns:
        False where the run's rows lie already, or where there are none.
    """
    return bool(rows) and _write_loose(store, lake_uri, "presence", rows, rows[0]["noticed_at"])


def _write_loose(store: Store, lake_uri: str, table: str, rows: Sequence[Row], at: datetime) -> bool:
    """Write a part that one execution alone writes, in one PUT."""
    key = loose_key(table, rows[0]["run_id"], at.astimezone(UTC).date())
    return write_once(store, f"{lake_uri_of(lake_uri)}/{key}", encode_rows(table, rows))


def write_once(store: Store, uri: str, data: bytes) -> bool:
    """Write an object of the lake unless one lies there.

    Returns:
        Whether it was written.

    Raises:
        ConfigError: the lake is closed to us, for a person to cure.
        TransientError: storage failed.
    """
    try:
        return store.write_if_absent(uri, data)
    except ObjectError as error:
        raise ConfigError(f"{uri}: the lake cannot be written ({error}). Check its permissions.") from error


def _encode(rows: ShardRows) -> tuple[Commit, dict[str, bytes]]:
    """Turn rows into a commit and the bytes of its parts, by key; the order of the segments does not matter."""
    day = partition_date(rows.recordings)
    tables = {
        "segments": sorted(rows.segments, key=lambda row: (row["recording_id"], row["segment_index"])),
        "recordings": sorted(rows.recordings, key=lambda row: row["recording_id"]),
    }
    parts, files = [], {}
    for table, table_rows in tables.items():
        if table_rows:
            key, data = part_key(table, rows.recipe_id, day, rows.shard_id), encode_rows(table, table_rows)
            digest = hashlib.sha256(data).hexdigest()
            parts.append(Part(table=table, key=key, num_rows=len(table_rows), size_bytes=len(data), sha256=digest))
            files[key] = data
    ids = "\n".join(row["recording_id"] for row in tables["recordings"])
    commit = Commit(
        schema_version=SCHEMA_VERSION,
        recipe_id=rows.recipe_id,
        shard_id=rows.shard_id,
        date=day.isoformat(),
        run_id=rows.run_id,
        recordings_digest=hashlib.blake2b(ids.encode(), digest_size=16).hexdigest(),
        parts=tuple(parts),
    )
    return commit, files


def _pack(commit: Commit, files: dict[str, bytes]) -> bytes:
    """Put a commit and its parts into one object, the claim."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in (*files.items(), ("commit.json", commit.to_json())):
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


def _publish(store: Store, lake_uri: str, claim: bytes, claim_uri: str) -> Commit:
    """Write what a claim holds: the parts, then the commit. Any number of writers may do so at once."""
    try:
        with zipfile.ZipFile(io.BytesIO(claim)) as archive:
            objects = {name: archive.read(name) for name in archive.namelist()}
        data = objects.pop("commit.json")
    except (zipfile.BadZipFile, KeyError) as error:
        raise IntegrityError(f"{claim_uri}: is no claim of a shard ({error}). Delete it and run again.") from error
    commit = parse_commit(data, claim_uri)
    for key, part in objects.items():
        write_once(store, f"{lake_uri}/{key}", part)
    commit_uri = f"{lake_uri}/{commit_key(commit.recipe_id, commit.shard_id)}"
    write_once(store, commit_uri, data)
    return parse_commit(store.read_bytes(commit_uri), commit_uri)


def _read_commit(store: Store, lake_uri: str, recipe_id: str, shard_id: str) -> Commit | None:
    """Read a shard's commit; `None` where there is none."""
    uri = f"{lake_uri}/{commit_key(recipe_id, shard_id)}"
    try:
        return parse_commit(store.read_bytes(uri), uri)
    except ObjectMissingError:
        return None
