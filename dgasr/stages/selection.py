"""Which recordings are to be transcribed: a person's wishes in, yes or no for one recording out. Lists nothing."""

from dataclasses import dataclass, replace
from datetime import datetime
from fnmatch import fnmatchcase
from typing import ClassVar

from dgasr.errors import ConfigError, Reason


@dataclass(frozen=True, kw_only=True, slots=True)
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

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

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
        """Turn `force` and `reasons` into a time that a later run can be given, to go on where this one ended.

        Args:
            now: when the work begins; what is transcribed from then on is not taken again.
        """
        if self.redo_before is None and (self.force or self.reasons):
            return replace(self, redo_before=now, force=False)
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """What was asked for, for messages and the run's row: sources, single objects, and the list by its own name."""
        return (*self.sources, *self.uris, *([] if self.uri_list is None else [self.uri_list]))

    @property
    def redoes(self) -> bool:
        """Whether anything that the lake holds is transcribed again."""
        return self.force or bool(self.reasons) or self.redo_before is not None

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
