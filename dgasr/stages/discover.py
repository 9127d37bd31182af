"""Lists the recordings at some sources, each once, and what of the lake's recordings a listing no longer finds.

Reads neither audio nor features. Two million URIs meet as 64-bit hashes, so that a listing of a million objects costs
no more memory than their ids.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from itertools import chain, islice
from os import fsencode
from os.path import dirname, isdir
from urllib.parse import quote_from_bytes

import numpy as np

from dgasr.errors import ConfigError, ObjectError
from dgasr.lake.ledger import absent_uris, append_rows, recording_rows
from dgasr.lake.location import FOLDERS
from dgasr.lake.rows import presence_rows
from dgasr.lake.schema import TABLES
from dgasr.records import EPOCH, MISSING_ETAG, Recording
from dgasr.store import list_objects, read_bytes
from dgasr.store.folders import FILE_SCHEME, local_path, local_uri
from dgasr.store.s3 import is_s3

NAMED_AT_ONCE = 16
"""Objects asked for by name that are looked up side by side; each costs a request."""


def read_uri_list(uri: str) -> tuple[str, ...]:
    """Read a text with a URI on each line, empty lines aside; ConfigError where it is none or names nothing."""
    try:
        lines = read_bytes(uri).decode("utf-8-sig").split("\n")
    except (ObjectError, UnicodeDecodeError) as error:
        raise ConfigError(f"{uri}: is no list of URIs ({error}). Give a text file with one URI a line.") from error
    named = tuple(line.strip("\r\t ") for line in lines if line.strip("\r\t "))
    if not named:
        raise ConfigError(f"{uri}: names no recording. Put one URI on each line.")
    return named


@dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """What a listing speaks about: where it found nothing, nothing lies."""

    names: frozenset[str] = frozenset()
    """URIs that were asked for by name."""
    prefixes: tuple[str, ...] = ()
    """What the URIs of all that was listed begin with."""

    def covers(self, uri: str) -> bool:
        """Say whether an object of this name would have been listed."""
        return uri in self.names or uri.startswith(self.prefixes)


class Listing:
    """The recordings at some sources, each once, while they are listed; nothing is listed before.

    Args:
        sources: files, folders or `s3://bucket/prefix` URIs.
        uris: objects by name, even if others' names begin with theirs. One that is missing is a recording too: reading
            it gives it its row.
        lake_uri: absolute; what a lake there consists of is no recording. Empty for no lake.
    """

    def __init__(self, sources: Sequence[str], uris: Sequence[str] = (), *, lake_uri: str = "") -> None:
        self._sources, self._lake_uri = sources, lake_uri
        self._uris = tuple(dict.fromkeys(map(whole_uri, uris)))
        self._names = set(self._uris)
        self._prefixes: set[str] = set()
        self.is_complete = False
        """Whether the listing came to its end without an error."""

    @property
    def bounds(self) -> Scope:
        """What the listing can speak about at most; known before it begins."""
        names = [name for source in self._sources for name in _spellings(source)]
        return Scope(names=frozenset(self._uris), prefixes=tuple(names))

    @property
    def scope(self) -> Scope:
        """What the listing speaks about; settled once it is complete."""
        return Scope(names=frozenset(self._names), prefixes=tuple(sorted(self._prefixes)))

    def __iter__(self) -> Iterator[Recording]:
        """List once; ConfigError where a bucket or folder is missing, or no store understands a source."""
        many = len(self._sources) + bool(self._uris) > 1
        yielded: set[str] = set()
        listed = (one for source in self._sources for one in self._list_source(source) if not self._is_lakes(one.uri))
        for recording in chain(listed, _list_named(self._uris)):
            if many and recording.recording_id in yielded:
                continue
            if many:
                yielded.add(recording.recording_id)
            yield recording
        self.is_complete = True

    def _is_lakes(self, uri: str) -> bool:
        """Tell the lake's own files: a lake may lie where its recordings do, and even a table be called as they are."""
        if not self._lake_uri or not uri.startswith(f"{self._lake_uri}/"):
            return False
        folder = uri.removeprefix(f"{self._lake_uri}/").partition("/")[0]
        is_tables = uri.endswith(".parquet") or "/_delta_log/" in uri
        return (folder in TABLES and is_tables) or (folder in FOLDERS and folder not in TABLES)

    def _list_source(self, source: str) -> Iterator[Recording]:
        """List a source, and note whether it was an object's name or what many names begin with."""
        whole = whole_uri(source)
        if not is_s3(source) and isdir(local_path(source)):
            self._prefixes |= {name.rstrip("/") + "/" for name in _spellings(source)}
            yield from list_objects(source)
            return
        found = None
        for found in list_objects(source):
            if found.uri == whole:
                self._names.add(whole)
            else:
                self._prefixes.add(whole)
            yield found
        if found is None:
            self._prefixes.add(whole)


def _list_named(uris: Iterable[str]) -> Iterator[Recording]:
    """Look objects up by name, some at a time, in order."""
    remaining = iter(uris)
    with ThreadPoolExecutor(NAMED_AT_ONCE) as pool:
        while group := list(islice(remaining, 16 * NAMED_AT_ONCE)):
            yield from pool.map(_named, group)


def _named(uri: str) -> Recording:
    # A store lists an object before those whose names begin with its own.
    found = next(iter(list_objects(uri)), None)
    if found is not None and found.uri == uri:
        return found
    return Recording(uri=uri, etag=MISSING_ETAG, size_bytes=0, modified_at=EPOCH)


def _spellings(source: str) -> tuple[str, ...]:
    """Write a source in both ways that its recordings' URIs may begin: file names that are no text are encoded."""
    if is_s3(source):
        return (whole_uri(source),)
    return whole_uri(source), FILE_SCHEME + quote_from_bytes(fsencode(local_path(source)))


def whole_uri(source: str) -> str:
    """Write a URI as the store's listing does, and as it is found from any working directory."""
    if is_s3(source):
        return source if "/" in source.removeprefix("s3://") else f"{source}/"
    return local_uri(local_path(source))


class Presence:
    """What the lake knew of before a listing began, within `bounds`, and what that listing came across."""

    def __init__(self, lake_uri: str, bounds: Scope) -> None:
        self._lake_uri = lake_uri
        self._known = np.unique(np.fromiter(map(uri_hash, _known_uris(lake_uri, bounds)), np.uint64))
        self._absent = absent_uris(lake_uri)
        self._seen = array("Q")
        self._back: dict[str, str] = {}

    def see(self, recording: Recording) -> None:
        """Take note of what was listed."""
        if recording.etag == MISSING_ETAG:
            return
        self._seen.append(uri_hash(recording.uri))
        if recording.uri in self._absent:
            self._back[recording.uri] = recording.recording_id

    def note(self, scope: Scope, run_id: str) -> tuple[int, int]:
        """Write down what is gone and what is back, after a listing that came to its end; return how many of each."""
        gone = sorted(self._gone(scope))
        now = datetime.now(UTC)
        rows = [
            *presence_rows([(uri, None) for uri in gone], "deleted", noticed_at=now, run_id=run_id),
            *presence_rows(sorted(self._back.items()), "returned", noticed_at=now, run_id=run_id),
        ]
        append_rows(self._lake_uri, "presence", rows)
        return len(gone), len(self._back)

    def _gone(self, scope: Scope) -> set[str]:
        """Return what the lake knew of, the listing speaks about and did not find, unless that is known."""
        seen = np.unique(np.frombuffer(self._seen, np.uint64))
        missing = set(np.setdiff1d(self._known, seen, assume_unique=True).tolist())
        if not missing:
            return set()
        candidates = {uri for uri in _known_uris(self._lake_uri, scope) if uri_hash(uri) in missing}
        listed = set(seen.tolist()) if any(not is_s3(uri) for uri in candidates) else set()
        # A folder that may not be read is listed in place of what is in it: nobody knows what is left there.
        hidden = {uri for uri in candidates if not is_s3(uri) and any(uri_hash(up) in listed for up in _folders(uri))}
        return candidates - hidden - self._absent


def uri_hash(uri: str) -> int:
    """Shorten a URI to 64 bits: among a million against a million others, two are alike once in ten million times."""
    return int.from_bytes(blake2b(uri.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")


def _known_uris(lake_uri: str, scope: Scope) -> Iterator[str]:
    """Read the URIs of the recordings of all recipes, some of them several times, as far as a scope covers them."""
    for uri, etag in recording_rows(lake_uri, ("uri", "etag")):
        if etag != MISSING_ETAG and scope.covers(uri):  # what was asked for by name may never have been there
            yield uri


def _folders(uri: str) -> Iterator[str]:
    while (folder := dirname(uri)) != uri:
        yield folder
        uri = folder
