"""What child runs did: figures that add, and the row of the lake's `runs` that they become. Knows no flow."""

import json
import os
import platform
import resource
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dgasr.lake.parts import write_run
from dgasr.lake.rows import run_row
from dgasr.recipe import Recipe
from dgasr.stages.plan import Stage
from dgasr.store import objects


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


REPORTED_PACKAGES = ("dgasr", "torch", "transformers", "numpy", "soundfile", "av", "soxr")
"""Packages that can change text or times, and so belong in a run's row."""


def worker_name() -> str:
    """Name this process among all machines: host and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


def versions_json() -> str:
    """Name the versions of Python and of all packages that can change text or times, as JSON."""
    return json.dumps({"python": platform.python_version()} | {p: version(p) for p in REPORTED_PACKAGES})


def peak_memory_bytes() -> int:
    """Return the largest resident memory this process has had."""
    try:
        # Linux hands `ru_maxrss` on to whatever a process starts: a small child of a large parent would seem large.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildRun:
    """Who does what: one attempt of one stage on one assignment.

    Attributes:
        lake_uri: the lake.
        parent_run_id: the whole run.
        stage: what is done.
        number: the assignment's position among those of its run.
        attempt: which attempt this is, from 1.
        assignment_uri: the assignment.
        started_at: when it began, with a time zone.
    """

    lake_uri: str
    parent_run_id: str
    stage: Stage
    number: int
    attempt: int
    assignment_uri: str
    started_at: datetime

    @property
    def run_id(self) -> str:
        """Name of the child run in the lake."""
        return f"{self.parent_run_id}-{self.stage}-{self.number:05d}-{self.attempt}"


def commit_prepare_run(child: ChildRun, recipe: Recipe, prepared: PreparedAssignment) -> None:
    """Write the row of a child run that read audio; its counts are of what it read, not of what was committed."""
    complete = prepared.num_recordings - prepared.num_rejected
    _commit(
        child,
        recipe,
        device="cpu",
        recordings={"ok": complete, "rejected": prepared.num_rejected},
        num_segments=prepared.num_segments,
        num_words=0,
        audio_s=prepared.audio_s,
        wall_s=prepared.wall_s,
    )


def commit_decode_run(
    child: ChildRun, recipe: Recipe, decoded: DecodedAssignment, device: str, gpu_hour_price: float
) -> None:
    """Write the row of a child run that decoded.

    Args:
        child: the child run.
        recipe: what it followed.
        decoded: what it did.
        device: where its model ran.
        gpu_hour_price: what an hour of it costs; 0 where nobody said.
    """
    complete = decoded.num_recordings - decoded.num_partial - decoded.num_rejected
    _commit(
        child,
        recipe,
        device=device,
        recordings={"ok": complete, "partial": decoded.num_partial, "rejected": decoded.num_rejected},
        num_segments=decoded.num_segments,
        num_words=decoded.num_words,
        audio_s=decoded.audio_s,
        wall_s=decoded.wall_s,
        busy_share=decoded.busy_share,
        gpu_hour_price=gpu_hour_price or None,
    )


def _commit(child: ChildRun, recipe: Recipe, **figures: Any) -> None:
    row = run_row(
        run_id=child.run_id,
        recipe_id=recipe.recipe_id,
        recipe_json=recipe.to_json(),
        versions_json=versions_json(),
        source=child.assignment_uri,
        started_at=child.started_at,
        peak_memory_bytes=peak_memory_bytes(),
        stage=child.stage,
        parent_run_id=child.parent_run_id,
        worker=worker_name(),
        num_attempts=child.attempt,
        **figures,
    )
    write_run(objects, child.lake_uri, row)
