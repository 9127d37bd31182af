"""Recordings in, shards out: what is written together, whole or not at all. Reads no audio and knows no lake."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC
from pathlib import PurePosixPath
from typing import ClassVar

from dgasr.errors import ConfigError
from dgasr.records import Recording, Shard

BYTES_PER_SECOND = {
    ".wav": 32_000,
    ".aiff": 32_000,
    ".flac": 16_000,
    ".mp3": 8_000,
    ".aac": 8_000,
    ".m4a": 8_000,
    ".mp4": 16_000,
    ".ogg": 6_000,
    ".opus": 3_000,
    ".webm": 6_000,
}
"""Typical bytes per second of speech archives, by file ending. Ours; a guess that only sets how even shards are."""

OTHER_BYTES_PER_SECOND = 16_000
"""The guess for every other ending."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardConfig:
    """How much is committed at once.

    Attributes:
        target_s: estimated audio in a shard, s; a longer recording is a shard of its own.
        max_recordings: most recordings in a shard, however short they are.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    target_s: float = 3600.0
    max_recordings: int = 2000

    def __post_init__(self) -> None:
        """Refuse shards that hold nothing."""
        if self.target_s <= 0 or self.max_recordings < 1:
            raise ConfigError(
                f"ShardConfig: target_s={self.target_s} and max_recordings={self.max_recordings} must be positive."
            )


def plan_shards(recordings: Iterable[Recording], recipe_id: str, config: ShardConfig, take: int = 0) -> Iterator[Shard]:
    """Group recordings of one day into shards.

    A shard is closed by its own recordings and never by what follows. So a run that was stopped, or a second one on
    the same archive, plans the shards that are not committed yet exactly as they were planned before.

    Args:
        recordings: what is to be transcribed, in the store's order; taken lazily.
        recipe_id: fingerprint of the recipe.
        config: how large a shard is.
        take: 0, or one more than the highest take of rows that are to be replaced.

    Yields:
        Shards whose recordings were all modified on one UTC day; every recording is in exactly one.
    """
    open_days: dict[str, list[Recording]] = {}
    estimates_s: dict[str, float] = {}
    for recording in recordings:
        day = recording.modified_at.astimezone(UTC).date().isoformat()
        members = open_days.setdefault(day, [])
        members.append(recording)
        estimates_s[day] = estimates_s.get(day, 0.0) + estimate_s(recording)
        if estimates_s[day] >= config.target_s or len(members) >= config.max_recordings:
            yield _shard(members, recipe_id, take)
            del open_days[day], estimates_s[day]
    for day in sorted(open_days):
        yield _shard(open_days[day], recipe_id, take)


def estimate_s(recording: Recording) -> float:
    """Guess a recording's duration from its size, s."""
    suffix = PurePosixPath(recording.uri).suffix.lower()
    return recording.size_bytes / BYTES_PER_SECOND.get(suffix, OTHER_BYTES_PER_SECOND)


def _shard(members: list[Recording], recipe_id: str, take: int) -> Shard:
    """Name a shard after its recipe, take and recordings, so that equal work has an equal name everywhere."""
    # No recording's id looks like a take, and without a take a shard is named as it always was.
    key = "\0".join([recipe_id, *([f"take {take}"] if take else []), *(member.recording_id for member in members)])
    shard_id = hashlib.blake2b(key.encode(), digest_size=12).hexdigest()
    return Shard(shard_id=shard_id, recordings=tuple(members), take=take)
