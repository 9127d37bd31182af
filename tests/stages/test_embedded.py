from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from dgasr.errors import TransientError
from dgasr.lake.transcripts import read_transcripts
from dgasr.lake.views import connect
from dgasr.recipe import Recipe
from dgasr.stages import prepare as prepare_module
from dgasr.stages.discover import Listing
from dgasr.stages.embedded import transcribe_sources
from dgasr.stages.heartbeat import Progress
from dgasr.stages.report import RunSummary
from tests.stages.conftest import FakeTranscriber, engine_of, write_archive


class Noted(Progress):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def begin_reading(self, shard) -> None:
        self.events.append("read")

    def recording_read(self) -> None:
        self.events.append("recording")

    def begin_decoding(self, shard, num_segments) -> None:
        self.events.append(f"decode {num_segments}")

    def segment_decoded(self) -> None:
        self.events.append("segment")

    def end_shard(self, shard_id, counts) -> None:
        self.events.append("end")


def run(archive: Path, recipe: Recipe, transcriber, progress: Progress | None = None) -> RunSummary:
    lake = f"{archive.parent}/lake"
    return transcribe_sources([str(archive)], lake, recipe, engine_of(recipe, transcriber), progress or Progress())


def ask(archive: Path, query: str) -> list[tuple]:
    with connect(f"{archive.parent}/lake") as connection:
        return connection.execute(query).fetchall()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe, make_audio) -> SimpleNamespace:
    """An archive that was transcribed once; what was heard, and what was told of it. Read it, never write to it."""
    archive = write_archive(tmp_path_factory.mktemp("done") / "archive", make_audio)
    transcriber, noted = FakeTranscriber(), Noted()
    summary = run(archive, recipe, transcriber, noted)
    return SimpleNamespace(archive=archive, seen=transcriber.seen, events=noted.events, summary=summary)


def test_every_recording_gets_a_row(done):
    assert ask(done.archive, "select split_part(uri, '/', -1), status, reason from recordings order by uri") == [
        ("a.flac", "ok", None),
        ("b.wav", "ok", None),
        ("cut.wav", "partial", "truncated"),
        ("text.mp3", "rejected", "unknown_format"),
    ]


def test_only_speech_goes_to_the_transcriber(done):
    spoken = ask(done.archive, "select count(*) from segments where kind = 'speech' and text = 'sound'")[0][0]
    assert len(done.seen) == spoken > 0
    assert {item.segment.kind for item in done.seen} == {"speech"}


def test_a_run_has_its_row_and_leaves_nothing_staged(done):
    rows = ask(done.archive, "select run_id, num_recordings, num_partial, num_rejected, device from runs")
    assert rows == [(done.summary.run_id, 4, 1, 1, "cpu")]
    assert not [path for path in (done.archive.parent / "lake").rglob("staging/**/*") if path.is_file()]


def test_progress_is_told_of_every_recording_and_segment(done):
    count = ask(done.archive, "select count(*)::int from segments")[0][0]
    assert done.events == ["read"] + ["recording"] * 4 + [f"decode {count}"] + ["segment"] * count + ["end"]


def test_transcripts_are_read_back_in_order(done, recipe):
    ids = [recording.recording_id for recording in Listing([str(done.archive)])]
    found = list(read_transcripts(f"{done.archive.parent}/lake", recipe.recipe_id, ids))
    assert [one.recording["uri"].split("/")[-1] for one in found] == ["a.flac", "b.wav", "cut.wav", "text.mp3"]
    assert all([s["segment_index"] for s in t.segments] == list(range(t.recording["num_segments"])) for t in found)
    assert found[0].text.startswith("sound sound")


def test_a_second_run_does_nothing(archive: Path, recipe: Recipe, transcriber):
    first = run(archive, recipe, transcriber)
    heard = len(transcriber.seen)
    second = run(archive, recipe, transcriber)
    assert (first.num_recordings, second.num_recordings, second.num_held) == (4, 0, 4)
    assert len(transcriber.seen) == heard
    assert "the lake holds all 4" in second.line()


def test_storage_that_fails_stops_the_run_and_a_second_one_completes_it(
    archive: Path, recipe: Recipe, transcriber, monkeypatch: pytest.MonkeyPatch
):
    def fail(recording):
        raise TransientError(f"{recording.uri}: no answer")

    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "open_object", fail)
        with pytest.raises(TransientError):
            run(archive, recipe, transcriber)
    assert run(archive, recipe, transcriber).num_recordings == 4


def test_segments_of_a_recording_that_is_rejected_half_way_are_left_out(
    archive: Path, recipe: Recipe, transcriber, make_audio: Callable[..., np.ndarray]
):
    audio = make_audio(2.0, 2.0, 2.0)
    audio[-100] = np.nan
    soundfile.write(archive / "nan.wav", audio, 16_000, subtype="FLOAT")
    run(archive, recipe, transcriber)
    nan = [r.recording_id for r in Listing([str(archive / "nan.wav")])]
    assert ask(archive, "select status, reason, num_segments from recordings where uri like '%nan.wav'") == [
        ("rejected", "not_finite", 0)
    ]
    assert nan[0] not in {item.segment.recording_id for item in transcriber.seen}
