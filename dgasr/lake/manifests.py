"""Manifests: what readers see of all that was committed up to a moment, in one object. JSON in and out; knows no row.

A manifest covers commits and loose parts, and names the parts that hold their rows now. Numbers only rise, and each is
written once; readers follow the highest, and add what was committed since. docs/decisions/0016-manifests.md
"""

import gzip
import json
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from dgasr.errors import IntegrityError
from dgasr.lake.commits import Part
from dgasr.lake.location import Lake, lake_uri_of
from dgasr.lake.parts import Store, write_once
from dgasr.lake.schema import SCHEMA_VERSION

MANIFEST_NAME = re.compile(r"manifests/(\d{8})\.json\.gz")

MAX_CONFLICTS = 8
"""Times that somebody else's manifest may come first before whoever publishes gives up for now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What readers see of everything up to a moment.

    Attributes:
        number: its place in the order of manifests, from 1; 0 stands for a lake that has none.
        parts: the parts that hold the rows of what it covers.
        covers: keys of commits, and of loose parts, that readers need not and must not follow any more.
        dropped: recipes that readers no longer see, while their files are being removed.
        schema_version: version of the tables it was written with.
        token: random, so that whoever published it knows it again.
    """

    number: int = 0
    parts: tuple[Part, ...] = ()
    covers: frozenset[str] = frozenset()
    dropped: frozenset[str] = frozenset()
    schema_version: int = SCHEMA_VERSION
    token: str = field(default_factory=lambda: secrets.token_hex(8))

    def next(self, parts: Iterable[Part], covers: Iterable[str], dropped: Iterable[str]) -> "Manifest":
        """Make the manifest that is to follow this one."""
        return Manifest(
            number=self.number + 1, parts=tuple(parts), covers=frozenset(covers), dropped=frozenset(dropped)
        )

    def to_bytes(self) -> bytes:
        """Return the bytes of the object."""
        fields: dict[str, Any] = {
            "schema_version": self.schema_version,
            "number": self.number,
            "token": self.token,
            "dropped": sorted(self.dropped),
            "parts": [[getattr(part, name) for name in PART_FIELDS] for part in self.parts],
            "covers": sorted(self.covers),
        }
        return gzip.compress(json.dumps(fields).encode(), compresslevel=6, mtime=0)


PART_FIELDS = ("table", "key", "num_rows", "size_bytes", "sha256")
"""Of a part, in the order in which they stand in a manifest."""


def manifest_key(number: int) -> str:
    """Return where the manifest of a number lies."""
    return f"manifests/{number:08d}.json.gz"


def manifest_numbers(keys: Iterable[str]) -> list[int]:
    """Return the numbers of the manifests among some keys, rising; anything else under `manifests/` is a stranger."""
    return sorted(int(match[1]) for key in keys if (match := MANIFEST_NAME.fullmatch(key)))


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Read a manifest.

    Raises:
        IntegrityError: it is not one, or a newer dgasr wrote it.
    """
    try:
        fields = json.loads(gzip.decompress(data))
        if fields["schema_version"] > SCHEMA_VERSION:
            raise IntegrityError(
                f"{where}: has schema version {fields['schema_version']}, and this dgasr reads up to {SCHEMA_VERSION}. "
                "Upgrade dgasr."
            )
        return Manifest(
            number=fields["number"],
            parts=tuple(Part(**dict(zip(PART_FIELDS, values, strict=True))) for values in fields["parts"]),
            covers=frozenset(fields["covers"]),
            dropped=frozenset(fields["dropped"]),
            schema_version=fields["schema_version"],
            token=fields["token"],
        )
    except (OSError, EOFError, ValueError, TypeError, KeyError) as error:
        raise IntegrityError(
            f"{where}: is no manifest of a lake ({error!r}). Restore it from a copy; where none is left, delete it: "
            "readers then follow the manifest before it, and `dgasr lake check` says what that one lacks."
        ) from error


def read_manifest(lake: Lake) -> Manifest:
    """Read the manifest that readers follow, an empty one of number 0 where the lake has none.

    Raises:
        IntegrityError: it cannot be read, or a newer dgasr wrote it.
    """
    numbers = manifest_numbers(lake.list_sizes("manifests"))
    if not numbers:
        return Manifest()
    key = manifest_key(numbers[-1])
    return parse_manifest(lake.read(key), f"{lake.uri}/{key}")


def publish_manifest(store: Store, lake_uri: str, manifest: Manifest) -> bool:
    """Make a manifest the one that readers follow, unless its number is taken.

    Returns:
        Whether this manifest is the one of its number. `False`: somebody else's is, and whatever this one was made from
        must be looked at anew.

    Raises:
        ConfigError: the lake cannot be written.
        TransientError: the store failed, and may or may not hold the manifest.
    """
    uri = f"{lake_uri_of(lake_uri)}/{manifest_key(manifest.number)}"
    data = manifest.to_bytes()
    # A store that lost its first answer is asked a second time, and finds what it wrote itself.
    return write_once(store, uri, data) or store.read_bytes(uri) == data
