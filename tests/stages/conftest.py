"""A transcriber that needs no model, recordings made of tones and silence, and a place where they are transcribed."""

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dgasr.lake.views import connect
from dgasr.recipe import Recipe
from dgasr.records import SAMPLE_RATE_HZ, SegmentFeatures, SegmentTranscript, Shard, Word
from dgasr.stages.counts import RunSummary
from dgasr.stages.discover import Listing
from dgasr.stages.embedded import transcribe_backlog
from dgasr.stages.engine import Engine
from dgasr.stages.heartbeat import Progress
from dgasr.stages.plan import AssignmentConfig, write_assignments
from dgasr.stages.selection import Backlog, Selection, find_backlog


class FakeTranscriber:
    """Says "sound" over each whole segment, last segment first, and remembers what it was given."""

    def __init__(self) -> None:
        self.seen: list[SegmentFeatures] = []

    def transcribe(self, features: Iterable[SegmentFeatures]) -> Iterator[SegmentTranscript]:
        given = list(features)
        self.seen += given
        for item in reversed(given):
            segment = item.segment
            word = Word(word="sound", start_sample=segment.start_sample, end_sample=segment.end_sample, confidence=0.75)
            yield SegmentTranscript(
                segment=segment, text="sound", language="en", words=(word,), timing_source="ctc", confidence=0.75,
                flags=(), num_steps=3, canvas_tokens=8,
            )  # fmt: skip


def engine_of(recipe: Recipe, transcriber: object) -> Callable[[], Engine]:
    """Give what loads an engine without a model."""
    return lambda: Engine(recipe=recipe, transcriber=transcriber, device="cpu")


class Place:
    """A folder with an archive and a lake, and what is done to them in a process."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.archive, self.lake, self.recipe = folder / "archive", f"{folder}/lake", recipe
        self.transcriber = FakeTranscriber()

    def backlog(self, *names: str, recipe_id: str = "", **selection: object) -> Backlog:
        """What of the archive, or of some of it, is to be transcribed."""
        sources = tuple(f"{self.archive}/{name}" for name in names) or (str(self.archive),)
        asked = Selection(**{"sources": sources} | selection).starting_at(datetime.now(UTC))
        return find_backlog(asked, self.lake, recipe_id or self.recipe.recipe_id)

    def transcribe(self, *names: str, progress: Progress | None = None, **selection: object) -> RunSummary:
        """Transcribe it."""
        engine = engine_of(self.recipe, self.transcriber)
        backlog = self.backlog(*names, **selection)
        return transcribe_backlog(backlog, self.lake, self.recipe, engine, progress or Progress())

    def ask(self, query: str) -> list[tuple]:
        """Ask the lake."""
        with connect(self.lake) as connection:
            return connection.execute(query).fetchall()

    def shards(self, size: int = 1) -> list[Shard]:
        """The archive's recordings in shards of so many, `s0`, `s1` and so on."""
        found = list(Listing([str(self.archive)]))
        groups = [tuple(found[n : n + size]) for n in range(0, len(found), size)]
        return [Shard(shard_id=f"s{number}", recordings=group) for number, group in enumerate(groups)]

    def assign(self, shards: list[Shard]) -> str:
        """Write shards down as one assignment; its URI."""
        ((uri, _),) = write_assignments(shards, f"{self.lake}/staging/runs/r1/assignments", AssignmentConfig())
        return uri


@pytest.fixture(scope="session")
def make_audio() -> Callable[..., np.ndarray]:
    """Give a function that makes bursts of sound of the given lengths, apart by silences."""

    def make(*bursts_s: float, silence_s: float = 3.0) -> np.ndarray:
        generator = np.random.default_rng(7)
        pieces = [1e-4 * generator.standard_normal(round(silence_s * SAMPLE_RATE_HZ))]
        for burst_s in bursts_s:
            time_s = np.arange(round(burst_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
            loudness = 0.2 + 0.15 * np.sin(2 * np.pi * 3 * time_s)  # rises and falls as syllables do
            pieces += [loudness * np.sin(2 * np.pi * 300 * time_s), pieces[0]]
        return np.concatenate(pieces).astype(np.float32)

    return make


@pytest.fixture
def place(tmp_path: Path, make_audio: Callable[..., np.ndarray], recipe: Recipe) -> Place:
    """An archive of two good recordings, one cut off, one that is no audio; and no lake yet."""
    return write_archive(tmp_path, make_audio, recipe)


def write_archive(folder: Path, make_audio: Callable[..., np.ndarray], recipe: Recipe) -> Place:
    archive = folder / "archive"
    archive.mkdir()
    soundfile.write(archive / "a.flac", make_audio(2.0, 3.0), SAMPLE_RATE_HZ)
    soundfile.write(archive / "b.wav", make_audio(1.5), SAMPLE_RATE_HZ)
    soundfile.write(archive / "cut.wav", make_audio(2.0, 2.0), SAMPLE_RATE_HZ)
    whole = (archive / "cut.wav").read_bytes()
    (archive / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (archive / "text.mp3").write_bytes(b"this is no audio at all, only its name says so. " * 20)
    return Place(folder, recipe)
