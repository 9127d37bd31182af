"""Which recordings are to be transcribed: a person's selection against what lies at its sources and in the lake.

And a forecast of what that would do and cost, in counts, hours and money, which writes nothing. Reads no audio, and
loads no model.
"""

from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from fnmatch import fnmatchcase

from dgasr.errors import ConfigError, Reason
from dgasr.lake.ledger import committed_recordings, recording_rows, rows_of
from dgasr.records import Recording, settings
from dgasr.stages.discover import Listing, Presence, read_uri_list
from dgasr.stages.plan import estimate_s


@settings
class Selection:
    """What is transcribed: all that lies at the sources, unless something here leaves it out or takes it again.

    Attributes:
        sources: files, folders or `s3://bucket/prefix`.
        uris: single objects by name.
        uri_list: text file or object with the URI of an object on each line.
        modified_from: only what was last modified at this time or later, with a time zone.
        modified_until: only what was last modified before this time, with a time zone.
        path_pattern: only URIs that match this shell pattern as a whole; `*` matches slashes too.
        from_recipe: only recordings that the lake holds for this other recipe, to follow a change of recipe.
        reasons: only recordings that the lake holds with one of these reasons; they are transcribed again.
        redo_before: transcribe again what was transcribed before this time, with a time zone.
        force: transcribe all of it again, whatever the lake holds; `redo_before` with the time of the start.
    """

    sources: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    uri_list: str | None = None
    modified_from: datetime | None = None
    modified_until: datetime | None = None
    path_pattern: str | None = None
    from_recipe: str | None = None
    reasons: tuple[str, ...] = ()
    redo_before: datetime | None = None
    force: bool = False

    def __post_init__(self) -> None:
        """Refuse what selects nothing or contradicts itself."""
        if not self.sources and not self.uris and self.uri_list is None:
            raise ConfigError("Selection: names no source. Give a folder, an s3:// prefix, or a list of URIs.")
        for name in ("modified_from", "modified_until", "redo_before"):
            time = getattr(self, name)
            if time is not None and time.tzinfo is None:
                raise ConfigError(f"Selection: {name}={time.isoformat()} has no time zone. Write {time.isoformat()}Z.")
        if self.modified_from and self.modified_until and self.modified_from >= self.modified_until:
            raise ConfigError(
                f"Selection: nothing is modified from {self.modified_from.isoformat()} until "
                f"{self.modified_until.isoformat()}. Let the first come before the second."
            )
        if unknown := sorted(set(self.reasons) - set(Reason)):
            raise ConfigError(f"Selection: no recording has reason {', '.join(unknown)}. Known: {', '.join(Reason)}.")
        if self.force and self.redo_before is not None:
            raise ConfigError("Selection: force sets redo_before to the time of the start. Give one of the two.")

    def starting_at(self, now: datetime) -> "Selection":
        """Turn `force` and `reasons` into a time that a later run can be given, to go on where this one ended."""
        if self.redo_before is None and (self.force or self.reasons):
            return replace(self, redo_before=now, force=False)
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """What was asked for, for messages and the run's row: sources, single objects, and the list by its own name."""
        return (*self.sources, *self.uris, *([] if self.uri_list is None else [self.uri_list]))

    def covers(self, uri: str, modified_at: datetime) -> bool:
        """Say whether name and time of an object are among those asked for, whatever the lake holds."""
        return (
            (self.modified_from is None or modified_at >= self.modified_from)
            and (self.modified_until is None or modified_at < self.modified_until)
            and (self.path_pattern is None or fnmatchcase(uri, self.path_pattern))
        )

    def takes_again(self, transcribed_at: datetime, reason: str | None) -> bool:
        """Say whether a recording that the lake holds is transcribed again; needs `starting_at` to have been called."""
        return (
            self.redo_before is not None
            and transcribed_at < self.redo_before
            and (not self.reasons or reason in self.reasons)
        )


class Backlog:
    """The recordings that are to be transcribed; counts while it is walked through, once.

    Args:
        selection: what is asked for, after `Selection.starting_at`.
        listing: what lies at its sources.
        held: ids of 16 bytes of what the lake holds for the recipe.
        again: of these, what is transcribed again.
        take: the take under which it is: above all takes that it replaces, so that readers prefer it. 0: nothing is.
        presence: what the lake knew of before the listing began.
        candidates: the only recording ids that count; `None` for all.
    """

    def __init__(
        self,
        selection: Selection,
        listing: Listing,
        held: Container[bytes],
        again: Container[bytes],
        take: int,
        presence: Presence,
        candidates: Container[bytes] | None = None,
    ) -> None:
        self.selection = selection
        self.take = take
        self._listing, self._presence = listing, presence
        self._held, self._again, self._candidates = held, again, candidates
        self.num_listed = 0
        """Recordings at the sources so far."""
        self.num_held = 0
        """Of these, passed over because the lake holds them."""
        self.num_again = 0
        """Of these, transcribed again."""
        self.num_new = 0
        """Of these, transcribed for the first time under the recipe; all others are not in the selection."""

    def __iter__(self) -> Iterator[Recording]:
        """List what is to be transcribed; raises as `Listing` does."""
        for recording in self._listing:
            self.num_listed += 1
            self._presence.see(recording)
            if not self.selection.covers(recording.uri, recording.modified_at):
                continue
            recording_id = bytes.fromhex(recording.recording_id)
            if self._candidates is not None and recording_id not in self._candidates:
                continue
            if recording_id in self._again:
                self.num_again += 1
                yield recording
            elif recording_id in self._held:
                self.num_held += 1
            elif not self.selection.reasons:
                self.num_new += 1
                yield recording

    def note_presence(self, run_id: str) -> tuple[int, int]:
        """Write down which objects are gone and which back, if the listing came to its end; return how many of each.

        ConfigError where it found nothing at all: the request is wrong, and not everything gone.
        """
        if not self._listing.is_complete:
            return 0, 0
        if not self.num_listed:
            names = ", ".join(self.selection.names)
            raise ConfigError(f"{names}: nothing lies there. Give files, a folder or an s3:// prefix.")
        return self._presence.note(self._listing.scope, run_id)


def find_backlog(selection: Selection, lake_uri: str, recipe_id: str) -> Backlog:
    """Look up what the lake holds of a recipe, if anything, and get ready to list the rest.

    ConfigError where the selection's list of URIs cannot be used, or the lake holds nothing of the recipe it follows;
    IntegrityError where the lake contradicts itself; TransientError where the store does not answer.
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
    held, again, take = _held(selection, lake_uri, recipe_id)
    return Backlog(selection, listing, held, again, take, presence, candidates)


def _held(selection: Selection, lake_uri: str, recipe_id: str) -> tuple[set[bytes], set[bytes], int]:
    """Look up what the lake holds, which of it is transcribed again, and under which take."""
    if selection.redo_before is None:
        return committed_recordings(lake_uri, recipe_id), set(), 0
    columns = ("recording_id", "uri", "modified_at", "transcribed_at", "reason", "take")
    ids: set[bytes] = set()
    again: set[bytes] = set()
    take = 0
    for row in recording_rows(lake_uri, columns, recipe_id=recipe_id):
        recording_id, uri, modified_at, transcribed_at, reason, row_take = row
        ids.add(bytes.fromhex(recording_id))
        if selection.takes_again(transcribed_at, reason) and selection.covers(uri, modified_at):
            again.add(bytes.fromhex(recording_id))
            take = max(take, (row_take or 0) + 1)
    return ids, again, take


def list_selected(selection: Selection, lake_uri: str = "") -> Listing:
    """Start listing where a selection says, without what a lake there consists of; the caller leaves out the rest."""
    listed = () if selection.uri_list is None else read_uri_list(selection.uri_list)
    return Listing(selection.sources, (*selection.uris, *listed), lake_uri=lake_uri)


ASSUMED_RTFX = 54.0
"""Audio seconds that a GPU decodes in a second, where the lake holds no run of the recipe: Voxtral-Small-24B's on an
A100, the published figure of the size class closest to `full`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What would be done, and what it would take."""

    num_listed: int
    """Recordings at the sources."""
    num_held: int
    """Of these, in the lake already."""
    num_new: int
    """Of these, to be transcribed for the first time under the recipe."""
    num_again: int
    """Of these, to be transcribed again."""
    size_bytes: int
    """What the objects to be transcribed weigh."""
    known_s: float
    """Audio of those whose duration the lake knows, from whatever recipe, s."""
    num_known: int
    estimated_s: float
    """Audio of the others, guessed from size and file ending, s."""
    rtfx: float
    """Audio seconds decoded in a second of GPU time."""
    rtfx_origin: str
    """Where that figure comes from."""
    gpu_hour_price: float

    @property
    def num_recordings(self) -> int:
        """Recordings to be transcribed."""
        return self.num_new + self.num_again

    @property
    def audio_s(self) -> float:
        """Audio to be transcribed, s."""
        return self.known_s + self.estimated_s

    @property
    def gpu_s(self) -> float:
        """Time of one GPU, s."""
        return self.audio_s / self.rtfx

    @property
    def cost(self) -> float:
        """What that time costs, in the price's currency."""
        return self.gpu_s / 3600 * self.gpu_hour_price

    def line(self) -> str:
        """Say the most of it in one line."""
        hours = f"{self.audio_s / 3600:,.2f} h of audio, {self.gpu_s / 3600:,.2f} h of a GPU"
        return f"{self.num_recordings:,} of {self.num_listed:,} recordings, {hours}"

    def rows(self) -> list[tuple[str, str]]:
        """Say it as names and values, for a terminal or an artifact."""
        num_out = self.num_listed - self.num_held - self.num_recordings
        num_guessed = self.num_recordings - self.num_known
        return [
            ("at the sources", f"{self.num_listed:,} recordings"),
            ("not selected", f"{num_out:,}"),
            ("in the lake already", f"{self.num_held:,}"),
            ("to transcribe", f"{self.num_recordings:,} ({self.num_new:,} new, {self.num_again:,} again)"),
            ("size", f"{self.size_bytes / 1e9:,.3f} GB"),
            ("audio, known from the lake", f"{self.known_s / 3600:,.2f} h in {self.num_known:,} recordings"),
            ("audio, estimated from sizes", f"{self.estimated_s / 3600:,.2f} h in {num_guessed:,} recordings"),
            ("GPU time, estimated", f"{self.gpu_s / 3600:,.2f} h at RTFx {self.rtfx:,.0f} ({self.rtfx_origin})"),
            (
                "cost, estimated",
                f"{self.cost:,.2f} at {self.gpu_hour_price:g} an hour" if self.gpu_hour_price else "no price was given",
            ),
        ]


def forecast(backlog: Backlog, lake_uri: str, recipe_id: str, gpu_hour_price: float = 0.0) -> Forecast:
    """Walk through a backlog, which this uses up, without transcribing any of it.

    `gpu_hour_price` is what a GPU costs an hour, in any currency; 0 leaves the cost out, and ConfigError refuses less.
    """
    if gpu_hour_price < 0:
        raise ConfigError(f"forecast: gpu_hour_price={gpu_hour_price} must not be negative.")
    held = recording_rows(lake_uri, ("recording_id", "decoded_s"))
    # Of a rejected recording nobody knows how long it is.
    durations_s = {bytes.fromhex(recording_id): decoded_s for recording_id, decoded_s in held if decoded_s > 0}
    known_s = estimated_s = 0.0
    num_known = size_bytes = 0
    for recording in backlog:
        duration_s = durations_s.get(bytes.fromhex(recording.recording_id))
        num_known += duration_s is not None
        known_s += duration_s or 0.0
        estimated_s += estimate_s(recording) if duration_s is None else 0.0
        size_bytes += recording.size_bytes
    rtfx, origin = _throughput(lake_uri, recipe_id)
    return Forecast(
        num_listed=backlog.num_listed, num_held=backlog.num_held, num_new=backlog.num_new, num_again=backlog.num_again,
        size_bytes=size_bytes, known_s=known_s, num_known=num_known, estimated_s=estimated_s,
        rtfx=rtfx, rtfx_origin=origin, gpu_hour_price=gpu_hour_price,
    )  # fmt: skip


def _throughput(lake_uri: str, recipe_id: str) -> tuple[float, str]:
    """Find out how fast the recipe is, of its decode runs or else its whole runs, or assume it; and which it was."""
    runs = [run for run in rows_of(lake_uri, "runs", recipe_id=recipe_id) if run["audio_s"] > 0]
    for stage, kind in (("decode", "decode runs"), (None, "whole runs")):
        if found := [run for run in runs if run["stage"] == stage]:
            rtfx = sum(run["audio_s"] for run in found) / sum(run["wall_s"] for run in found)
            devices = ", ".join(sorted({run["device"] for run in found}))
            return rtfx, f"measured on {devices}, {kind} of this recipe: {len(found)}"
    return ASSUMED_RTFX, "assumed: the lake holds no run of this recipe"
