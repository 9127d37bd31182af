"""The files of a lake against what commits and manifests say of them. Reads footers, and with `is_deep` all bytes."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet

from dgasr.errors import IntegrityError
from dgasr.lake.commits import READ_THREADS, Commit, Part, claimed_shards, commit_key, parse_commit
from dgasr.lake.datasets import partition_values, unreadable
from dgasr.lake.garbage import MEANINGS, Inventory, find_garbage, foreign_files
from dgasr.lake.inspection.findings import (
    MOVE_OR_RESTORE,
    REPLACE_COMMIT,
    RESTORE,
    UPGRADE,
    WAIT,
    WITHOUT_COMMIT,
    Finding,
    finding,
)
from dgasr.lake.location import Lake
from dgasr.lake.schema import LOOSE_TABLES, SCHEMA_VERSION, TABLES
from dgasr.lake.snapshot import is_own_part, recipe_of


def read_all_commits(found: Inventory, is_deep: bool) -> tuple[dict[str, Commit], list[Finding]]:
    """Read the commits that the manifest does not cover, with `is_deep` all; by key, with what is wrong with others."""
    keys = [
        key
        for key in found.files
        if key.startswith("commits/")
        and key.endswith(".json")
        and recipe_of(key) not in found.manifest.dropped
        and (is_deep or key not in found.manifest.covers)
    ]
    commits, findings = {}, []
    with ThreadPoolExecutor(READ_THREADS) as pool:
        for key, data in zip(keys, pool.map(found.lake.read, keys), strict=True):
            try:
                commit = parse_commit(data, f"{found.lake.uri}/{key}")
            except IntegrityError as error:
                advice = UPGRADE if UPGRADE in str(error) else REPLACE_COMMIT
                findings.append(_fault("commit", found.lake, key, _reason(error, found.lake, key), advice))
                continue
            if key != commit_key(commit.recipe_id, commit.shard_id):
                what = f"speaks of shard {commit.shard_id} of recipe {commit.recipe_id}, whose commit lies elsewhere"
                findings.append(_fault("commit", found.lake, key, what, REPLACE_COMMIT))
            else:
                commits[key] = commit
    return commits, findings


def visible_parts(found: Inventory, commits: dict[str, Commit]) -> list[Part]:
    """Return the parts that readers are to see, whether or not they lie there."""
    manifest = found.manifest
    noted = [part for part in manifest.parts if recipe_of(part.key) not in manifest.dropped]
    since = [part for key, commit in commits.items() if key not in manifest.covers for part in commit.parts]
    named = {part.key for part in noted}
    loose = [
        Part(table=table, key=key, num_rows=None, size_bytes=info.size, sha256=None)
        for key, info in found.files.items()
        if (table := key.partition("/")[0]) in LOOSE_TABLES
        and is_own_part(key)
        and key not in named
        and key not in manifest.covers
    ]
    return [*noted, *since, *loose]


def check_parts(found: Inventory, parts: list[Part], is_deep: bool) -> tuple[list[Part], list[Finding]]:
    """Return the parts that are what they should be, and what is wrong with the others."""
    sound, findings = [], []
    with ThreadPoolExecutor(READ_THREADS) as pool:
        for part, wrong in zip(
            parts, pool.map(lambda part: list(_check_part(found, part, is_deep)), parts), strict=True
        ):
            findings += wrong
            if not any(finding.severity == "fault" for finding in wrong):
                sound.append(part)
    return sound, findings


def check_leftovers(found: Inventory) -> Iterator[Finding]:
    """Yield what lies in the lake and belongs to nothing that readers see."""
    for key in foreign_files(found):
        advice = "Move it out of the lake: whoever reads the folder as a whole reads it too"
        yield _note("foreign_file", found.lake, key, "was not written by dgasr", advice)
    for item in find_garbage(found):
        advice = WITHOUT_COMMIT if item.kind == "orphan" else WAIT
        yield _note(item.kind, found.lake, item.key, f"one of the {MEANINGS[item.kind]}", advice)
    for key in found.files:
        if any(commit_key(*shard) not in found.files for shard in claimed_shards([key])):
            yield _note("claim_open", found.lake, key, "a writer began to commit this shard, and has not ended", WAIT)
    for key in found.manifest.covers:
        if key.startswith("commits/") and key not in found.files:
            what = "is gone; its rows are there, but a writer would not see that the shard is done"
            yield _note("commit_gone", found.lake, key, what, "Restore it from a copy if there is one")


def partition_of(key: str) -> str:
    """Name the partition of a part as `dgasr lake forget` takes it: `recipe_id=…/date=…`, or `runs/date=…`."""
    table, _, folder = key.rpartition("/")[0].partition("/")
    return f"{table}/{folder}" if table in LOOSE_TABLES else folder


def _check_part(found: Inventory, part: Part, is_deep: bool) -> Iterator[Finding]:
    """Yield what is wrong with one part."""
    lake, info = found.lake, found.files.get(part.key)
    if info is None:
        yield _fault("part_missing", lake, part.key, "is named by a commit or manifest, and is not there", RESTORE)
        return
    if info.size != part.size_bytes:
        what = f"has {info.size} bytes, and {part.size_bytes} were committed"
        yield _fault("part_size", lake, part.key, what, RESTORE)
        return
    if is_deep and part.sha256 and hashlib.sha256(lake.read(part.key)).hexdigest() != part.sha256:
        yield _fault("part_digest", lake, part.key, "has other bytes than were committed", RESTORE)
        return
    try:
        partition_values(part.table, part.key)
        with pyarrow.parquet.ParquetFile(lake.path(part.key), filesystem=lake.filesystem) as file:
            schema, num_rows = file.schema_arrow, file.metadata.num_rows
    except IntegrityError as error:
        yield _fault("part_place", lake, part.key, _reason(error, lake, part.key), RESTORE)
        return
    except (pa.ArrowException, OSError) as error:
        sorted_error = unreadable(lake, part.key, error)
        if not isinstance(sorted_error, IntegrityError):
            raise sorted_error from error
        yield _fault("part_unreadable", lake, part.key, f"cannot be read ({error})", RESTORE)
        return
    if part.num_rows is not None and num_rows != part.num_rows:
        yield _fault("part_rows", lake, part.key, f"has {num_rows} rows, and {part.num_rows} were committed", RESTORE)
    yield from _check_schema(lake, part, schema)


def _check_schema(lake: Lake, part: Part, schema: pa.Schema) -> Iterator[Finding]:
    """Yield how a part's columns differ from those of its table."""
    metadata, declared = schema.metadata or {}, TABLES[part.table]
    version = metadata.get(b"dgasr.schema_version", b"0").decode()
    if not version.isdigit() or int(version) > SCHEMA_VERSION:
        what = f"has schema version {version}, and this dgasr reads up to {SCHEMA_VERSION}"
        yield _fault("part_version", lake, part.key, what, UPGRADE)
        return
    if metadata.get(b"dgasr.table") != part.table.encode():
        advice = MOVE_OR_RESTORE if part.table in LOOSE_TABLES else RESTORE
        yield _fault("part_schema", lake, part.key, f"is no part of {part.table}", advice)
        return
    for field in declared:
        index = schema.get_field_index(field.name)
        if index < 0 and not field.nullable:
            yield _fault("part_schema", lake, part.key, f"has no column {field.name}", RESTORE)
        if index >= 0 and not schema.field(index).type.equals(field.type):
            what = f"has {field.name} as {schema.field(index).type}, not {field.type}"
            yield _fault("part_schema", lake, part.key, what, RESTORE)
    if unknown := set(schema.names) - set(declared.names):
        what = f"has columns {sorted(unknown)}, which this dgasr does not show"
        yield _note("part_newer", lake, part.key, what, UPGRADE)


def _reason(error: IntegrityError, lake: Lake, key: str) -> str:
    """Take the place and the advice out of a message that has its own."""
    return str(error).removeprefix(f"{lake.uri}/").removeprefix(f"{key}: ").partition(". ")[0]


def _fault(kind: str, lake: Lake, key: str, what: str, advice: str) -> Finding:
    return finding("fault", kind, f"{lake.uri}/{key}", what, advice, partition_of(key))


def _note(kind: str, lake: Lake, key: str, what: str, advice: str) -> Finding:
    return finding("note", kind, f"{lake.uri}/{key}", what, advice, partition_of(key))
