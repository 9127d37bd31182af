"""Several backfills at once, each a process of its own, over prefixes that overlap."""

import os
from collections import Counter
from datetime import UTC, datetime
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dgasr.recipe import Recipe
from dgasr.stages.embedded import transcribe_backlog
from dgasr.stages.heartbeat import Progress
from tests.stages.conftest import FakeTranscriber, Place, engine_of

NUM_DAYS = 5
"""Each a shard of its own, or two where one backfill sees more of the day than the other."""


@pytest.fixture
def place(tmp_path: Path, recipe: Recipe) -> Place:
    """Ten short recordings in two folders, two on each day, and one that is no audio."""
    place = Place(tmp_path, recipe)
    noise = 0.1 * np.random.default_rng(3).standard_normal(16_000)
    for day in range(NUM_DAYS):
        at = datetime(2026, 1, 1 + day, tzinfo=UTC).timestamp()
        for folder in (place.archive, place.archive / "deep"):
            folder.mkdir(exist_ok=True)
            soundfile.write(folder / f"{day}.wav", noise[: 8_000 + 100 * day], 16_000)
            os.utime(folder / f"{day}.wav", (at, at))
    (place.archive / "deep" / "empty.wav").touch()
    return place


def backfill(place: Place, names: list[str], force: bool, start: Barrier) -> None:
    backlog = place.backlog(*names, force=force)
    start.wait()
    transcribe_backlog(backlog, place.lake, place.recipe, engine_of(place.recipe, FakeTranscriber()), Progress())


def run_at_once(place: Place, force: bool = False) -> list[int | None]:
    """Begin to transcribe the archive, the archive again and a folder of it at the same moment; the exit codes."""
    context = get_context("forkserver")  # which imports once for all of them
    context.set_forkserver_preload(["dgasr.stages.embedded", "tests.stages.test_embedded"])
    start = context.Barrier(3)
    processes = [context.Process(target=backfill, args=(place, names, force, start)) for names in ([], [], ["deep"])]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def check_whole(place: Place) -> None:
    """Every recording has one row, with all of its segments, once."""
    uris = [uri for (uri,) in place.ask("select uri from recordings")]
    assert Counter(uris) == Counter(str(path) for path in place.archive.rglob("*.wav"))
    assert place.ask("select 1 from segments group by recording_id, segment_index having count(*) > 1") == []
    incomplete = """
        select uri from recordings left join segments using (recipe_id, recording_id)
        group by uri, num_segments having count(segments.segment_index) <> num_segments
    """
    assert place.ask(incomplete) == []


@pytest.mark.slow
def test_nothing_is_missing_and_nothing_doubled(place: Place):
    assert run_at_once(place) == [0, 0, 0]
    check_whole(place)
    assert run_at_once(place, force=True) == [0, 0, 0]
    check_whole(place)
    assert place.ask("select distinct take from recordings") == [(1,)]
