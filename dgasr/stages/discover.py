"""Sources in, recordings out: all that lie there, or those that the lake does not hold yet. Reads no audio."""

from collections.abc import Container, Iterator, Sequence

from dgasr.records import Recording
from dgasr.store.objects import list_objects


def list_recordings(sources: Sequence[str]) -> Iterator[Recording]:
    """List what lies at the sources; a recording that several of them hold comes once.

    Args:
        sources: files, folders or `s3://bucket/prefix` URIs.

    Yields:
        Recordings. A file or object that is asked for by name and missing is one too: reading it gives it its row.

    Raises:
        ConfigError: no such bucket or folder, or a source that no store understands.
        TransientError: the store does not answer.
    """
    seen: set[str] = set()
    for source in sources:
        for recording in list_objects(source):
            if len(sources) == 1:
                yield recording
            elif recording.recording_id not in seen:
                seen.add(recording.recording_id)
                yield recording


class Backlog:
    """What lies at the sources and is not in the lake yet; counts while it is walked through."""

    def __init__(self, sources: Sequence[str], held: Container[bytes]) -> None:
        """Take note; nothing is listed yet.

        Args:
            sources: as for `list_recordings`.
            held: ids of the recordings that the lake's ledger holds for the recipe, 16 bytes each.
        """
        self._sources = sources
        self._held = held
        self.num_held = 0
        """Recordings passed over so far because the lake holds them."""

    def __iter__(self) -> Iterator[Recording]:
        """List the recordings that are to be transcribed; raises as `list_recordings` does."""
        for recording in list_recordings(self._sources):
            if bytes.fromhex(recording.recording_id) in self._held:
                self.num_held += 1
            else:
                yield recording
