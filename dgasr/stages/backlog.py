"""A selection against the lake: what is to be transcribed, one recording after the other. Reads no audio."""

from collections.abc import Container, Iterator
from dataclasses import dataclass

from dgasr.errors import ConfigError
from dgasr.lake.ledger import committed_recordings, held_rows
from dgasr.records import Recording
from dgasr.stages.discover import Listing, list_selected
from dgasr.stages.presence import Presence
from dgasr.stages.selection import Selection

ROWS_AT_ONCE = 50_000
"""Rows of the lake that are Python objects at once: bounds the memory that a million of them take."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """What the lake holds for a recipe, as far as a selection asks."""

    ids: Container[bytes]
    """Recording ids, 16 bytes each."""
    again: Container[bytes] = frozenset()
    """Of these, what is transcribed again."""
    take: int = 0
    """The take under which it is: above all takes that it replaces, so that readers prefer it. 0: nothing is."""


class Backlog:
    """The recordings that are to be transcribed; counts while it is walked through, once."""

    def __init__(
        self,
        selection: Selection,
        listing: Listing,
        held: Held,
        presence: Presence,
        candidates: Container[bytes] | None = None,
    ) -> None:
        """Take note; nothing is listed yet.

        Args:
            selection: what is asked for, after `Selection.starting_at`.
            listing: what lies at its sources.
            held: what the lake holds for the recipe.
            presence: what the lake knew of before the listing began.
            candidates: the only recording ids that count; `None` for all.
        """
        self.selection = selection
        self.take = held.take
        self._listing, self._held, self._presence, self._candidates = listing, held, presence, candidates
        self.num_listed = 0
        """Recordings at the sources so far."""
        self.num_held = 0
        """Of these, passed over because the lake holds them."""
        self.num_again = 0
        """Of these, transcribed again."""
        self.num_new = 0
        """Of these, transcribed for the first time under the recipe; all others are not in the selection."""

    def __iter__(self) -> Iterator[Recording]:
        """List what is to be transcribed; raises as `list_recordings` does."""
        for recording in self._listing:
            self.num_listed += 1
            self._presence.see(recording)
            if not self.selection.covers(recording.uri, recording.modified_at):
                continue
            recording_id = bytes.fromhex(recording.recording_id)
            if self._candidates is not None and recording_id not in self._candidates:
                continue
            if recording_id in self._held.again:
                self.num_again += 1
                yield recording
            elif recording_id in self._held.ids:
                self.num_held += 1
            elif not self.selection.reasons:
                self.num_new += 1
                yield recording

    def note_presence(self, run_id: str) -> tuple[int, int]:
        """Write down which objects are gone and which are back, if the listing came to its end.

        Args:
            run_id: the run that listed.

        Returns:
            How many are gone, and how many are back, since the last listing.

        Raises:
            TransientError: the store does not answer; the next run writes it down.
        """
        return self._presence.note(self._listing.scope, run_id) if self._listing.is_complete else (0, 0)


def find_backlog(selection: Selection, lake_uri: str, recipe_id: str) -> Backlog:
    """Look up what the lake holds, and get ready to list the rest.

    Args:
        selection: what is asked for, after `Selection.starting_at`.
        lake_uri: the lake; nothing need lie there yet.
        recipe_id: the recipe that is transcribed with.

    Raises:
        ConfigError: the selection's list of URIs cannot be used, or the lake holds nothing of the recipe it follows.
        IntegrityError: the lake contradicts itself.
        TransientError: the store does not answer.
    """
    listing = list_selected(selection, lake_uri)
    candidates = None if selection.from_recipe is None else committed_recordings(lake_uri, selection.from_recipe)
    if candidates is not None and not candidates:
        raise ConfigError(
            f"{lake_uri}: holds nothing of recipe {selection.from_recipe}. `dgasr sql recipes --lake {lake_uri}` lists "
            "the recipes that it holds."
        )
    # Before the listing: what another run commits while this one lists must not look as if it were gone.
    presence = Presence(lake_uri, listing.bounds)
    return Backlog(selection, listing, _held(selection, lake_uri, recipe_id), presence, candidates)


def _held(selection: Selection, lake_uri: str, recipe_id: str) -> Held:
    if not selection.redoes:
        return Held(ids=committed_recordings(lake_uri, recipe_id))
    columns = ("recording_id", "uri", "modified_at", "transcribed_at", "reason", "take")
    ids, again, take = set(), set(), 0
    for batch in held_rows(lake_uri, recipe_id, columns).to_batches(max_chunksize=ROWS_AT_ONCE):
        for row in zip(*(batch[name].to_pylist() for name in columns), strict=True):
            recording_id, uri, modified_at, transcribed_at, reason, row_take = row
            ids.add(bytes.fromhex(recording_id))
            if selection.takes_again(transcribed_at, reason) and selection.covers(uri, modified_at):
                again.add(bytes.fromhex(recording_id))
                take = max(take, (row_take or 0) + 1)
    return Held(ids=ids, again=again, take=take)
