from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from dgasr.errors import TransientError
from dgasr.lake.transcripts import read_transcripts
from dgasr.recipe import Recipe
from dgasr.stages import prepare as prepare_module
from dgasr.stages.discover import Listing
from dgasr.stages.embedded import transcribe_shards
from dgasr.stages.heartbeat import Progress
from dgasr.stages.plan import ShardConfig
from tests.stages.conftest import Place, engine_of, write_archive


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


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe, make_audio) -> SimpleNamespace:
    """A place that was transcribed once, and what was told of it. Read it, never write to it."""
    place, noted = write_archive(tmp_path_factory.mktemp("done"), make_audio, recipe), Noted()
    return SimpleNamespace(place=place, summary=place.transcribe(progress=noted), events=noted.events)


def test_every_recording_gets_a_row_and_only_speech_goes_to_the_transcriber(done):
    assert done.place.ask("select split_part(uri, '/', -1), status, reason from recordings order by uri") == [
        ("a.flac", "ok", None),
        ("b.wav", "ok", None),
        ("cut.wav", "partial", "truncated"),
        ("text.mp3", "rejected", "unknown_format"),
    ]
    spoken = done.place.ask("select count(*) from segments where kind = 'speech' and text = 'sound'")[0][0]
    assert len(done.place.transcriber.seen) == spoken > 0
    assert {item.segment.kind for item in done.place.transcriber.seen} == {"speech"}


def test_a_run_has_its_row_and_leaves_nothing_staged(done):
    rows = done.place.ask(
        "select run_id, num_recordings, num_partial, num_rejected, device, busy_share is not null from runs"
    )
    assert rows == [(done.summary.run_id, 4, 1, 1, "cpu", True)]
    assert not [path for path in Path(done.place.lake).rglob("staging/**/*") if path.is_file()]


def test_progress_is_told_of_every_recording_and_segment(done):
    count = done.place.ask("select count(*)::int from segments")[0][0]
    assert done.events == ["read"] + ["recording"] * 4 + [f"decode {count}"] + ["segment"] * count + ["end"]


def test_transcripts_are_read_back_in_order(done):
    ids = [recording.recording_id for recording in Listing([str(done.place.archive)])]
    found = list(read_transcripts(done.place.lake, done.place.recipe.recipe_id, ids))
    assert [one.recording["uri"].split("/")[-1] for one in found] == ["a.flac", "b.wav", "cut.wav", "text.mp3"]
    assert all([s["segment_index"] for s in t.segments] == list(range(t.recording["num_segments"])) for t in found)
    assert found[0].text.startswith("sound sound")


def test_a_second_run_does_nothing(place: Place):
    first = place.transcribe()
    heard = len(place.transcriber.seen)
    second = place.transcribe()
    assert (first.num_recordings, second.num_recordings, second.num_held) == (4, 0, 4)
    assert len(place.transcriber.seen) == heard
    assert "the lake holds all 4" in second.line()


def test_storage_that_fails_for_a_shard_fails_the_run_after_the_others_and_a_second_one_completes_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    open_object = prepare_module.open_object

    def fail(recording):
        if recording.uri.endswith("b.wav"):
            raise TransientError(f"{recording.uri}: no answer")
        return open_object(recording)

    engine = engine_of(place.recipe, place.transcriber)
    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "open_object", fail)
        with pytest.raises(TransientError, match=r"1 shards could not be read.*b\.wav: no answer"):
            transcribe_shards(
                place.backlog(), place.lake, place.recipe, engine, Progress(), "r1", ShardConfig(max_recordings=1)
            )
    assert place.ask("select count(*)::int from recordings") == [(3,)]
    assert place.transcribe().num_recordings == 1


def test_segments_of_a_recording_that_is_rejected_half_way_are_left_out(place: Place, make_audio):
    audio = make_audio(2.0, 2.0, 2.0)
    audio[-100] = np.nan
    soundfile.write(place.archive / "nan.wav", audio, 16_000, subtype="FLOAT")
    place.transcribe()
    (nan,) = Listing([f"{place.archive}/nan.wav"])
    assert place.ask("select status, reason, num_segments from recordings where uri like '%nan.wav'") == [
        ("rejected", "not_finite", 0)
    ]
    assert nan.recording_id not in {item.segment.recording_id for item in place.transcriber.seen}
