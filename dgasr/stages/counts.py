"""What was read or decoded, in figures that add, and the row of the lake's `runs` that they become.

Knows neither audio nor flow.
"""

import json
import os
import platform
import resource
import socket
import sys
from dataclasses import dataclass, fields
from datetime import datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dgasr.lake.ledger import append_rows
from dgasr.lake.rows import run_row
from dgasr.recipe import Recipe
from dgasr.stages.plan import ChildRun, RunFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """What was done with shards; counts of several add."""

    num_shards: int = 0
    num_shards_held: int = 0
    """Of these, committed before or by somebody else; nothing else of them is counted."""
    num_recordings: int = 0
    num_partial: int = 0
    num_rejected: int = 0
    num_segments: int = 0
    """Segments of the recordings that are kept."""
    num_words: int = 0
    audio_s: float = 0.0
    """Audio that was decoded, s."""
    speech_s: float = 0.0
    """Of it, what went through the model, s."""
    wall_s: float = 0.0
    """Time it took, s."""
    stream_s: float = 0.0
    """Time from the first segment in the model to the last one, s; 0 without speech."""
    busy_s: float = 0.0
    """Of it, the time in which the model waited neither for features nor for commits, s."""

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(**{field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)})

    @property
    def busy_share(self) -> float | None:
        """Share of the time in which the model had work; `None` without speech."""
        return self.busy_s / self.stream_s if self.stream_s else None

    def line(self) -> str:
        """Say it in one line."""
        if self.num_shards == self.num_shards_held:
            return "committed already"
        busy = "" if self.busy_share is None else f", model busy {self.busy_share:.0%} of the time"
        held = f"; {self.num_shards_held} of {self.num_shards} shards committed already" if self.num_shards_held else ""
        return (
            f"{self.num_recordings} recordings ({self.num_rejected} rejected, {self.num_partial} partial), "
            f"{self.num_segments} segments, {self.num_words} words, {self.audio_s / 3600:.2f} h of audio "
            f"in {self.wall_s:.1f} s{busy}{held}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary(Counts):
    """What one whole execution committed, as the lake says it; `wall_s` runs from its begin to its end."""

    run_id: str
    recipe_id: str
    num_held: int
    """Recordings that the lake held already."""

    @property
    def rtfx(self) -> float:
        """Audio seconds per wall second."""
        return self.audio_s / self.wall_s if self.wall_s > 0 else 0.0

    def line(self) -> str:
        """Say it in one line."""
        if not self.num_recordings:
            return f"nothing new: the lake holds all {self.num_held} recordings"
        held = f", {self.num_held} more were in the lake already" if self.num_held else ""
        return (
            f"{self.num_recordings} recordings ({self.num_rejected} rejected, {self.num_partial} partial), "
            f"{self.audio_s / 60:.1f} min of audio in {self.wall_s:.1f} s, RTFx {self.rtfx:.1f}{held}"
        )


REPORTED_PACKAGES = ("dgasr", "torch", "transformers", "numpy", "soundfile", "av", "soxr")
"""Packages that can change text or times, and so belong in a run's row."""


@lru_cache(maxsize=1)
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


def commit_child_run(
    folder: RunFolder, child: ChildRun, recipe: Recipe, done: Counts, started_at: datetime, **columns: Any
) -> None:
    """Write the row of a child run; of one that read audio, of what it read and not what was committed."""
    worker = f"{socket.gethostname()}:{os.getpid()}"
    write_run(
        folder.lake_uri, recipe, done, run_id=f"{folder.run_id}-{child.name}", source=child.assignment_uri,
        started_at=started_at, stage=child.stage, parent_run_id=folder.run_id, worker=worker,
        num_attempts=child.attempt, busy_share=done.busy_share, **columns,
    )  # fmt: skip


def write_run(lake_uri: str, recipe: Recipe, done: Counts, **columns: Any) -> None:
    """Write the row of an execution: what it did, what it followed, and the columns of `runs` that are given."""
    names = ("num_recordings", "num_partial", "num_rejected", "num_segments", "num_words", "audio_s", "wall_s")
    row = run_row(
        recipe_id=recipe.recipe_id, recipe=recipe.to_json(), versions=versions_json(),
        peak_memory_bytes=peak_memory_bytes(), **{name: getattr(done, name) for name in names}, **columns,
    )  # fmt: skip
    append_rows(lake_uri, "runs", [row])
