"""What of the lake's recordings a listing no longer finds, and what it finds again. Changes nothing but its own table.

Two million URIs meet as 64-bit hashes, so that a listing of a million objects costs no more memory than their ids.
"""

from array import array
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import blake2b
from os.path import dirname

import numpy as np

from dgasr.lake.commit import write_presence
from dgasr.lake.ledger import absent_uris, known_rows
from dgasr.lake.rows import presence_rows
from dgasr.records import Recording
from dgasr.stages.discover import Scope
from dgasr.store.locations import MISSING_ETAG, is_s3


class Presence:
    """What the lake knew of before a listing began, and what that listing came across."""

    def __init__(self, lake_uri: str, bounds: Scope) -> None:
        """Look up what the lake knows of.

        Args:
            lake_uri: the lake; nothing need lie there yet.
            bounds: what the listing can speak about at most.

        Raises:
            IntegrityError: the lake contradicts itself.
            TransientError: the store does not answer.
        """
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
        """Write down what is gone and what is back, after a listing that came to its end without an error.

        Args:
            scope: what the listing speaks about.
            run_id: the run that listed.

        Returns:
            How many are gone since the last listing, and how many are back.

        Raises:
            TransientError: the store does not answer; the next run writes it down.
        """
        gone = sorted(self._gone(scope))
        now = datetime.now(UTC)
        rows = [
            *presence_rows([(uri, None) for uri in gone], "deleted", noticed_at=now, run_id=run_id),
            *presence_rows(sorted(self._back.items()), "returned", noticed_at=now, run_id=run_id),
        ]
        write_presence(self._lake_uri, rows)
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
    for rows in known_rows(lake_uri, ("uri", "etag")):
        for uri, etag in zip(rows["uri"].to_pylist(), rows["etag"].to_pylist(), strict=True):
            if etag != MISSING_ETAG and scope.covers(uri):  # what was asked for by name may never have been there
                yield uri


def _folders(uri: str) -> Iterator[str]:
    while (folder := dirname(uri)) != uri:
        yield folder
        uri = folder
