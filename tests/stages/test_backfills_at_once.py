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

from dgasr.lake.views import connect
from dgasr.recipe import Recipe
from dgasr.stages.embedded import transcribe_backlog
from dgasr.stages.heartbeat import Progress
from dgasr.stages.selection import Selection, find_backlog
from tests.stages.conftest import FakeTranscriber, engine_of

NUM_DAYS = 5
"""Each a shard of its own, or two where one backfill sees more of the day than the other."""


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Ten short recordings in two folders, two on each day, and one that is no audio."""
    noise = 0.1 * np.random.default_rng(3).standard_normal(16_000)
    for day in range(NUM_DAYS):
        at = datetime(2026, 1, 1 + day, tzinfo=UTC).timestamp()
        for folder in ("in", "in/deep"):
            path = tmp_path / folder / f"{day}.wav"
            path.parent.mkdir(exist_ok=True)
            soundfile.write(path, noise[: 8_000 + 100 * day], 16_000)
            os.utime(path, (at, at))
    (tmp_path / "in" / "deep" / "empty.wav").touch()
    return tmp_path / "in"


def backfill(source: str, lake: str, recipe: Recipe, force: bool, start: Barrier) -> None:
    selection = Selection(sources=(source,), force=force).starting_at(datetime.now(UTC))
    backlog = find_backlog(selection, lake, recipe.recipe_id)
    start.wait()
    transcribe_backlog(backlog, lake, recipe, engine_of(recipe, FakeTranscriber()), Progress())


def run_at_once(sources: list[str], lake: str, recipe: Recipe, force: bool = False) -> list[int | None]:
    """Begin to transcribe at the same moment; the exit codes."""
    context = get_context("forkserver")  # which imports once for all of them
    context.set_forkserver_preload(["dgasr.stages.embedded", "tests.stages.test_embedded"])
    start = context.Barrier(len(sources))
    processes = [context.Process(target=backfill, args=(source, lake, recipe, force, start)) for source in sources]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def ask(lake: str, query: str) -> list[tuple]:
    with connect(lake) as connection:
        return connection.execute(query).fetchall()


def check_whole(lake: str, archive: Path) -> None:
    """Every recording has one row, with all of its segments, once."""
    uris = [uri for (uri,) in ask(lake, "select uri from recordings")]
    assert Counter(uris) == Counter(str(path) for path in archive.rglob("*.wav"))
    doubled = "select 1 from segments group by recording_id, segment_index having count(*) > 1"
    assert ask(lake, doubled) == []
    incomplete = """
        select uri from recordings left join segments using (recipe_id, recording_id)
        group by uri, num_segments having count(segments.segment_index) <> num_segments
    """
    assert ask(lake, incomplete) == []


@pytest.mark.slow
def test_nothing_is_missing_and_nothing_doubled(archive: Path, recipe: Recipe):
    lake = f"{archive.parent}/lake"
    sources = [str(archive), str(archive), f"{archive}/deep"]
    assert run_at_once(sources, lake, recipe) == [0, 0, 0]
    check_whole(lake, archive)
    assert run_at_once(sources, lake, recipe, force=True) == [0, 0, 0]
    check_whole(lake, archive)
    assert ask(lake, "select distinct take from recordings") == [(1,)]
