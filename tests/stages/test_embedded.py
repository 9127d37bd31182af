from collections.abc import Callable
from pathlib import Path

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
from tests.stages.conftest import engine_of


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


def test_every_recording_gets_a_row(archive: Path, recipe: Recipe, transcriber):
    run(archive, recipe, transcriber)
    rows = ask(archive, "select split_part(uri, '/', -1), status, reason from recordings order by uri")
    assert rows == [
        ("a.flac", "ok", None),
        ("b.wav", "ok", None),
        ("cut.wav", "partial", "truncated"),
        ("text.mp3", "rejected", "unknown_format"),
    ]


def test_only_speech_goes_to_the_transcriber(archive: Path, recipe: Recipe, transcriber):
    run(archive, recipe, transcriber)
    spoken = ask(archive, "select count(*) from segments where kind = 'speech' and text = 'sound'")[0][0]
    assert len(transcriber.seen) == spoken > 0
    assert {item.segment.kind for item in transcriber.seen} == {"speech"}


def test_a_second_run_does_nothing(archive: Path, recipe: Recipe, transcriber):
    first = run(archive, recipe, transcriber)
    heard = len(transcriber.seen)
    second = run(archive, recipe, transcriber)
    assert (first.num_recordings, second.num_recordings, second.num_held) == (4, 0, 4)
    assert len(transcriber.seen) == heard
    assert "the lake holds all 4" in second.line()


def test_a_run_leaves_nothing_staged(archive: Path, recipe: Recipe, transcriber):
    run(archive, recipe, transcriber)
    assert not [path for path in (archive.parent / "lake").rglob("staging/**/*") if path.is_file()]


def test_the_run_has_its_row(archive: Path, recipe: Recipe, transcriber):
    summary = run(archive, recipe, transcriber)
    rows = ask(archive, "select run_id, num_recordings, num_partial, num_rejected, device from runs")
    assert rows == [(summary.run_id, 4, 1, 1, "cpu")]


def test_progress_is_told_of_every_recording_and_segment(archive: Path, recipe: Recipe, transcriber):
    noted = Noted()
    run(archive, recipe, transcriber, noted)
    count = ask(archive, "select count(*)::int from segments")[0][0]
    assert noted.events == ["read"] + ["recording"] * 4 + [f"decode {count}"] + ["segment"] * count + ["end"]


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


def test_transcripts_are_read_back_in_order(archive: Path, recipe: Recipe, transcriber):
    run(archive, recipe, transcriber)
    ids = [r.recording_id for r in Listing([str(archive)])]
    transcripts = list(read_transcripts(f"{archive.parent}/lake", recipe.recipe_id, ids))
    assert [t.recording["uri"].split("/")[-1] for t in transcripts] == ["a.flac", "b.wav", "cut.wav", "text.mp3"]
    assert all(
        [s["segment_index"] for s in t.segments] == list(range(t.recording["num_segments"])) for t in transcripts
    )
    assert transcripts[0].text.startswith("sound sound")
