"""What prepare and decode did, in figures that add: of a shard, and of an assignment. Knows neither audio nor lake."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedShard:
    """Counts of a prepared shard; counts of several shards add."""

    shard_id: str
    num_recordings: int
    num_rejected: int
    num_segments: int
    """Segments of the recordings that are kept."""
    audio_s: float
    """Audio that was decoded, s."""
    wall_s: float
    """Time it took, s."""

    def line(self) -> str:
        """Say it in one line."""
        return (
            f"shard {self.shard_id}: {self.num_recordings} recordings read ({self.num_rejected} rejected), "
            f"{self.num_segments} segments, {self.audio_s / 3600:.2f} h of audio in {self.wall_s:.1f} s"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedAssignment:
    """Counts of a prepared assignment."""

    num_shards: int
    num_held: int
    """Of these, committed before, so that nothing was read for them."""
    num_recordings: int
    num_rejected: int
    num_segments: int
    audio_s: float
    """Audio that was decoded, s."""
    wall_s: float
    """Time it took, s."""

    def line(self) -> str:
        """Say it in one line."""
        return (
            f"{self.num_shards} shards: {self.num_recordings} recordings read ({self.num_rejected} rejected), "
            f"{self.audio_s / 3600:.2f} h of audio in {self.wall_s:.1f} s{_held(self.num_held)}"
        )


def add_prepared(shards: Sequence[PreparedShard], num_held: int, wall_s: float) -> PreparedAssignment:
    """Add up the shards of an assignment; `num_held` of it were left out because they are committed."""
    return PreparedAssignment(
        num_shards=len(shards) + num_held,
        num_held=num_held,
        num_recordings=sum(shard.num_recordings for shard in shards),
        num_rejected=sum(shard.num_rejected for shard in shards),
        num_segments=sum(shard.num_segments for shard in shards),
        audio_s=sum(shard.audio_s for shard in shards),
        wall_s=wall_s,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedShard:
    """Counts of a committed shard; counts of several shards add."""

    shard_id: str
    is_new: bool
    """Whether this call committed it; where another worker or an earlier attempt did, nothing else is counted."""
    num_recordings: int = 0
    num_partial: int = 0
    num_rejected: int = 0
    num_segments: int = 0
    num_words: int = 0
    audio_s: float = 0.0
    """Audio that was decoded, s."""
    speech_s: float = 0.0
    """Of it, what went through the model, s."""
    wall_s: float = 0.0
    """Time since the shard before it had its text, or since the work began, s."""

    def line(self) -> str:
        """Say it in one line."""
        if not self.is_new:
            return f"shard {self.shard_id}: committed already"
        return (
            f"shard {self.shard_id}: {self.num_recordings} recordings ({self.num_rejected} rejected, "
            f"{self.num_partial} partial), {self.audio_s / 3600:.2f} h of audio, {self.num_words} words, "
            f"decoded at RTFx {self.audio_s / max(self.wall_s, 1e-9):.0f}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedAssignment:
    """Counts of a decoded assignment."""

    num_shards: int
    num_held: int
    """Of these, committed by somebody else."""
    num_recordings: int
    num_partial: int
    num_rejected: int
    num_segments: int
    num_words: int
    audio_s: float
    """Audio that was decoded, s."""
    speech_s: float
    """Of it, what went through the model, s."""
    wall_s: float
    """Time it took, loading the model included, s."""
    busy_share: float | None
    """Share of the time from the first segment to the last in which the model waited neither for features nor for
    commits; `None` where there was no speech."""

    def line(self) -> str:
        """Say it in one line."""
        busy = "" if self.busy_share is None else f", model busy {self.busy_share:.0%} of the time"
        return (
            f"{self.num_shards} shards: {self.num_recordings} recordings ({self.num_rejected} rejected, "
            f"{self.num_partial} partial), {self.audio_s / 3600:.2f} h of audio in {self.wall_s:.1f} s{busy}"
            f"{_held(self.num_held)}"
        )


def add_decoded(shards: Sequence[DecodedShard], busy_share: float | None, wall_s: float) -> DecodedAssignment:
    """Add up the shards of an assignment."""
    return DecodedAssignment(
        num_shards=len(shards),
        num_held=sum(not shard.is_new for shard in shards),
        num_recordings=sum(shard.num_recordings for shard in shards),
        num_partial=sum(shard.num_partial for shard in shards),
        num_rejected=sum(shard.num_rejected for shard in shards),
        num_segments=sum(shard.num_segments for shard in shards),
        num_words=sum(shard.num_words for shard in shards),
        audio_s=sum(shard.audio_s for shard in shards),
        speech_s=sum(shard.speech_s for shard in shards),
        wall_s=wall_s,
        busy_share=busy_share,
    )


def _held(num_held: int) -> str:
    return f"; {num_held} committed already" if num_held else ""
