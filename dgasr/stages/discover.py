"""Sources in, recordings out: all that lie there, each once, and where it was looked. Reads neither audio nor rows."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from os import fsencode
from os.path import isdir
from urllib.parse import quote_from_bytes

from dgasr.errors import ConfigError, ObjectError
from dgasr.lake.location import FOLDERS
from dgasr.lake.schema import TABLES
from dgasr.records import Recording
from dgasr.stages.selection import Selection
from dgasr.store.locations import EPOCH, FILE_SCHEME, MISSING_ETAG, is_s3, local_path, local_uri
from dgasr.store.objects import list_objects, read_bytes

NAMED_AT_ONCE = 16
"""Objects asked for by name that are looked up side by side; each costs a request."""


def list_recordings(sources: Sequence[str], lake_uri: str = "") -> Iterator[Recording]:
    """List what lies at the sources; a recording that several of them hold comes once.

    Args:
        sources: files, folders or `s3://bucket/prefix` URIs.
        lake_uri: absolute; what a lake there consists of is no recording. Empty for no lake.

    Yields:
        Recordings. A file or object that is asked for by name and missing is one too: reading it gives it its row.

    Raises:
        ConfigError: no such bucket or folder, or a source that no store understands.
        TransientError: the store does not answer.
    """
    return iter(Listing(sources, lake_uri=lake_uri))


def read_uri_list(uri: str) -> tuple[str, ...]:
    """Read a text with the URI of an object on each line; empty lines are passed over.

    Raises:
        ConfigError: it cannot be read, is no text, or names nothing.
        TransientError: the store does not answer.
    """
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
    """The recordings at some sources, each once, while they are listed."""

    def __init__(self, sources: Sequence[str], uris: Sequence[str] = (), lake_uri: str = "") -> None:
        """Take note; nothing is listed yet.

        Args:
            sources: files, folders or `s3://bucket/prefix` URIs.
            uris: objects by name, even if others' names begin with theirs.
            lake_uri: absolute; what a lake there consists of is no recording. Empty for no lake.
        """
        self._sources = sources
        self._lake_uri = lake_uri
        self._uris = tuple(dict.fromkeys(map(_whole_uri, uris)))
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
        """List once; raises as `list_recordings` does."""
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
        whole = _whole_uri(source)
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


def list_selected(selection: Selection, lake_uri: str = "") -> Listing:
    """Start listing where a selection says; what it leaves out there is for the caller to leave out.

    Args:
        selection: what is asked for.
        lake_uri: absolute; what a lake there consists of is no recording. Empty for no lake.

    Raises:
        ConfigError: its list of URIs cannot be used.
        TransientError: the store does not answer.
    """
    listed = () if selection.uri_list is None else read_uri_list(selection.uri_list)
    return Listing(selection.sources, (*selection.uris, *listed), lake_uri)


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
        return (_whole_uri(source),)
    return _whole_uri(source), FILE_SCHEME + quote_from_bytes(fsencode(local_path(source)))


def _whole_uri(source: str) -> str:
    """Write a URI as the store's listing does."""
    if is_s3(source):
        return source if "/" in source.removeprefix("s3://") else f"{source}/"
    return local_uri(local_path(source))
