"""What kills a process from within: importable in spawned processes, and no part of dgasr."""

import os
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dgasr.recipe import Recipe
from dgasr.records import SegmentFeatures, SegmentTranscript, silent_transcript
from dgasr.stages.counts import Counts
from dgasr.stages.decode import decode_assignment
from dgasr.stages.heartbeat import HeartbeatWriter
from dgasr.stages.isolation import note_progress

DEADLY_AUDIO = """
import os, signal
import dgasr.stages.prepare as prepare

open_audio = prepare.open_audio

def open_or_die(file, name, config):
    if "deadly" in name:
        os.kill(os.getpid(), signal.SIGKILL)
    return open_audio(file, name, config)

prepare.open_audio = open_or_die
"""
"""A `sitecustomize.py`: in every Python that starts with it, reading a recording with this name is the end."""


def die() -> None:
    """End this process as a fault in C code or the system's lack of memory does."""
    os.kill(os.getpid(), signal.SIGKILL)


def double(number: int) -> int:
    """Do harmless work."""
    return 2 * number


def double_or_die(number: int) -> int:
    """Do work that some numbers do not survive."""
    if number < 0:
        die()
    return 2 * number


def stand_still(number: int) -> int:
    """Do work that never ends."""
    while True:
        time.sleep(number)


def fail(number: int) -> int:
    """Do work with a fault in it."""
    raise ZeroDivisionError(number)


def count_for_ever(pid_file: str) -> int:
    """Say which process this is, and go on until told to stop."""
    Path(pid_file).write_text(str(os.getpid()))
    while True:
        note_progress()
        time.sleep(0.001)


@dataclass(frozen=True)
class DeadlyEngine:
    """An engine without a model, which recordings of some ids kill."""

    recipe: Recipe
    deadly: Sequence[str] = ()

    @property
    def transcriber(self) -> "DeadlyEngine":
        """Itself."""
        return self

    def __call__(self) -> "DeadlyEngine":
        """Start it."""
        return self

    def transcribe(self, features: Iterable[SegmentFeatures]) -> Iterator[SegmentTranscript]:
        """Hear nothing in anything."""
        for item in features:
            if item.segment.recording_id in self.deadly:
                die()
            yield silent_transcript(item.segment, "en")


def decode_or_die(
    assignment_uri: str,
    recipe: Recipe,
    engine: DeadlyEngine,
    lake_uri: str,
    suspects: frozenset[str] = frozenset(),
    rejected: frozenset[str] = frozenset(),
    heartbeat_uri: str = "",
) -> Counts:
    """Decode an assignment with an engine that recordings may kill."""
    with HeartbeatWriter(heartbeat_uri or f"{lake_uri}/heartbeat.json", interval_s=60) as heartbeat:
        return decode_assignment(
            assignment_uri, recipe, engine, lake_uri, "run1", progress=heartbeat, suspects=suspects, rejected=rejected
        )
