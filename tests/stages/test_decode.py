"""Decoding: one model, one stream, threads ahead and behind, and processes that are really killed."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from dgasr import transcriber as transcriber_module
from dgasr.errors import ConfigError, TransientError
from dgasr.records import SegmentFeatures, SegmentTranscript, Shard, silent_transcript
from dgasr.samples import SAMPLES
from dgasr.stages import decode as decode_module
from dgasr.stages.counts import Counts
from dgasr.stages.decode import ShardStream, decode_assignment
from dgasr.stages.discover import Listing
from dgasr.stages.engine import EngineConfig, recipe_of, start_engine
from dgasr.stages.heartbeat import HeartbeatWriter, Progress, read_heartbeat
from dgasr.stages.isolation import Processes
from dgasr.stages.prepare import prepare_shard
from dgasr.stages.staging import delete_part, read_segments, staged_uri_of
from tests.stages.conftest import Place, engine_of
from tests.stages.deadly import DeadlyEngine, decode_or_die
from tests.stages.test_embedded import Noted

WAIT_S = 20
"""How long a thread that should come may take."""


@pytest.fixture
def shards(place: Place) -> list[Shard]:
    """Four shards: two of them whole, one cut off, one without any audio."""
    return place.shards()


def staged_uri(place: Place, shard: Shard) -> str:
    return staged_uri_of(place.lake, place.recipe.recipe_id, shard)


def stage(shards: list[Shard], place: Place) -> str:
    """Prepare shards and assign them."""
    for shard in shards:
        prepare_shard(shard, place.recipe, staged_uri(place, shard))
    return place.assign(shards)


def decode(uri: str, place: Place, transcriber: object, **shards: frozenset[str]) -> Counts:
    """Decode an assignment; the transcriber may be an engine, too."""
    engine = transcriber if callable(transcriber) else engine_of(place.recipe, transcriber)
    with HeartbeatWriter(f"{place.lake}/heartbeat.json", interval_s=60) as heartbeat:
        return decode_assignment(uri, place.recipe, engine, place.lake, "run1", progress=heartbeat, **shards)


def stream(place: Place, transcriber: object, run_id: str = "run1", progress: Progress | None = None) -> ShardStream:
    return ShardStream(place.recipe, engine_of(place.recipe, transcriber), place.lake, run_id, progress or Progress())


def rows(place: Place) -> list[tuple]:
    return place.ask("select split_part(uri, '/', -1), status, reason from recordings order by uri")


@dataclass
class Listener:
    """A transcriber that hears nothing, and does something before each segment."""

    on_segment: object = lambda item: None
    calls: list[list[str]] = field(default_factory=list)

    def transcribe(self, features: Iterable[SegmentFeatures]) -> Iterator[SegmentTranscript]:
        self.calls.append([])
        for item in features:
            self.calls[-1].append(item.segment.recording_id)
            self.on_segment(item)
            yield silent_transcript(item.segment, "en")


def test_the_model_is_loaded_once_for_all_shards_and_not_at_all_where_nothing_is_left(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    files = [f"{SAMPLES}/{name}" for name in ("american_man.flac", "american_woman.mp3", "silence.flac")]
    shards = [Shard(shard_id=f"s{n}", recordings=(found,)) for n, found in enumerate(Listing(files))]
    config = EngineConfig(device="cpu", batch_size=4, max_steps=2)
    loads, load = [], transcriber_module.load
    place.recipe = recipe_of(config)
    monkeypatch.setattr(
        transcriber_module, "load", lambda *names, **options: loads.append(1) or load(*names, **options)
    )
    uri = stage(shards, place)
    for num_held in (0, 3):
        start_engine.cache_clear()
        decoded = decode(uri, place, partial(start_engine, config))
        assert (decoded.num_shards, decoded.num_shards_held, len(loads)) == (3, num_held, 1)


def test_segments_of_all_shards_go_through_the_model_in_one_stream(shards: list[Shard], place: Place):
    listener = Listener()
    decode(stage(shards, place), place, listener)
    assert len(listener.calls) == 1
    assert list(dict.fromkeys(listener.calls[0])) == [s.recordings[0].recording_id for s in shards[:3]]
    assert [row[1] for row in rows(place)] == ["ok", "ok", "partial", "rejected"]
    last = read_heartbeat(f"{place.lake}/heartbeat.json")
    assert (last.line, last.shard_ids) == ("4 shards done", ())


def test_the_next_shard_is_fetched_and_the_last_one_committed_while_the_model_works(
    shards: list[Shard], place: Place, monkeypatch: pytest.MonkeyPatch
):
    fetched, committed, waited = threading.Event(), threading.Event(), []

    def read_and_note(uri: str):
        yield from read_segments(uri)
        if uri.endswith("s1"):
            fetched.set()

    class Committed(Progress):
        def end_shard(self, shard_id, counts) -> None:
            committed.set()

    def wait(item: SegmentFeatures) -> None:
        is_first = item.segment.recording_id == shards[0].recordings[0].recording_id
        waited.append((fetched if is_first else committed).wait(WAIT_S))

    monkeypatch.setattr(decode_module, "read_segments", read_and_note)
    stage(shards, place)
    stream(place, Listener(wait), progress=Committed()).run(shards[:2])
    assert all(waited)


def test_the_busy_share_is_the_time_in_which_the_model_did_not_wait_for_features(
    shards: list[Shard], place: Place, monkeypatch: pytest.MonkeyPatch
):
    clock = SimpleNamespace(now=100.0)

    def pass_s(duration_s: float) -> None:
        clock.now += duration_s

    @contextmanager
    def slowly(source, num_ahead):
        """Let each segment wait for two seconds, in the thread that asks."""
        yield (pass_s(2.0) or item for item in source if item[2] is not None)

    monkeypatch.setattr(decode_module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(decode_module, "prefetch", slowly)
    monkeypatch.setattr(decode_module.ShardTranscripts, "is_complete", False)
    stage(shards, place)
    listener = Listener(lambda item: pass_s(8.0))
    counts = stream(place, listener).run(shards)
    count = len(listener.calls[0])
    # The first wait comes before the first segment, and there is none after the last.
    assert counts.busy_share == pytest.approx(1 - 2 * (count - 1) / (10 * count - 2), abs=0.02)


def test_a_shard_that_is_not_staged_holds_up_no_other(shards: list[Shard], place: Place):
    uri = stage(shards, place)
    delete_part(staged_uri(place, shards[1]))
    with pytest.raises(TransientError, match="s1: no whole part lies here"):
        decode(uri, place, Listener())
    assert [row[0] for row in rows(place)] == ["a.flac", "cut.wav", "text.mp3"]


@pytest.mark.parametrize("is_short", [True, False])
def test_a_part_with_other_segments_than_it_says_is_prepared_again(shards, place, is_short):
    uri = stage(shards, place)
    part = Path(staged_uri(place, shards[0]))
    if is_short:
        next(part.glob("*.arrow")).unlink()
    else:
        (part / "00001.arrow").write_bytes((part / "00000.arrow").read_bytes())
    with pytest.raises(TransientError, match="holds other segments than it says"):
        decode(uri, place, Listener())
    assert not [path for path in part.rglob("*") if path.is_file()]
    assert [row[0] for row in rows(place)] == ["b.wav", "cut.wav", "text.mp3"]


def test_what_was_fetched_before_storage_failed_is_committed(
    shards: list[Shard], place: Place, monkeypatch: pytest.MonkeyPatch
):
    def read_or_fail(uri: str):
        if uri.endswith("s1"):
            raise TransientError("no answer")
        return read_segments(uri)

    monkeypatch.setattr(decode_module, "read_segments", read_or_fail)
    with pytest.raises(TransientError, match="no answer"):
        decode(stage(shards, place), place, Listener())
    assert [row[0] for row in rows(place)] == ["a.flac"]


def test_a_machine_with_another_model_is_refused(shards: list[Shard], place: Place):
    other = recipe_of(EngineConfig())
    with pytest.raises(ConfigError, match=f"follows recipe {other.recipe_id}"):
        decode(stage(shards, place), place, engine_of(other, Listener()))


def test_silence_alone_loads_no_model(tmp_path: Path, place: Place):
    soundfile.write(tmp_path / "silence.wav", np.zeros(5 * 16_000), 16_000)
    shard = Shard(shard_id="s1", recordings=tuple(Listing([f"{tmp_path}/silence.wav"])))

    def load():
        raise AssertionError("the model is loaded")

    counts = decode(stage([shard], place), place, load)
    assert (counts.num_recordings, counts.busy_share) == (1, None)
    assert rows(place) == [("silence.wav", "ok", None)]


def test_a_suspect_is_decoded_alone_after_the_others(shards: list[Shard], place: Place):
    listener = Listener()
    decode(stage(shards, place), place, listener, suspects=frozenset({"s0"}))
    ids = [shard.recordings[0].recording_id for shard in shards]
    assert [list(dict.fromkeys(call)) for call in listener.calls] == [ids[1:3], ids[:1]]


def test_a_process_that_dies_over_a_suspect_names_it_alone_and_leaves_the_others_committed(
    shards: list[Shard], place: Place
):
    uri = stage(shards, place)
    engine = DeadlyEngine(place.recipe, deadly=(shards[0].recordings[0].recording_id,))
    with Processes(1, lambda count: None) as processes:
        assert processes.run(decode_or_die, uri, place.recipe, engine, place.lake, frozenset({"s0"})) is None
    assert read_heartbeat(f"{place.lake}/heartbeat.json").shard_ids == ("s0",)
    assert [row[0] for row in rows(place)] == ["b.wav", "cut.wav", "text.mp3"]


def test_recordings_of_a_shard_that_ends_processes_get_rows_with_a_reason(place: Place):
    a, b, _, text = Listing([str(place.archive)])
    uri = stage([Shard(shard_id="s1", recordings=(a, text)), Shard(shard_id="s2", recordings=(b,))], place)
    engine = DeadlyEngine(place.recipe, deadly=(a.recording_id,))
    counts = decode(uri, place, engine, rejected=frozenset({"s1"}))
    assert (counts.num_shards, counts.num_recordings, counts.num_rejected) == (2, 3, 2)
    assert rows(place) == [
        ("a.flac", "rejected", "crashes_decoder"),
        ("b.wav", "ok", None),
        ("text.mp3", "rejected", "unknown_format"),
    ]


def test_a_kept_recording_carries_its_digest_its_time_and_its_take(shards: list[Shard], place: Place):
    decode(stage([replace(shard, take=2) for shard in shards], place), place, Listener())
    found = place.ask("select audio_digest is null, read_s > 0, take from recordings order by uri")
    assert found == [(False, True, 2)] * 3 + [(True, True, 2)]


@pytest.fixture
def shard(place: Place) -> Shard:
    (found,) = place.shards(4)
    return found


def test_two_workers_on_a_shard_commit_it_once(shard: Shard, place: Place):
    for run_id, num_held in (("run1", 0), ("run2", 1)):
        prepare_shard(shard, place.recipe, staged_uri(place, shard))
        assert stream(place, place.transcriber, run_id).run([shard]).num_shards_held == num_held
    assert place.ask("select distinct run_id, count(*) from recordings group by all") == [("run1", 4)]


def test_a_whole_part_is_not_prepared_again_and_covers_each_recording_exactly(shard: Shard, place: Place):
    first = prepare_shard(shard, place.recipe, staged_uri(place, shard))
    noted = Noted()
    second = prepare_shard(shard, place.recipe, staged_uri(place, shard), noted)
    assert not noted.events
    assert (second.num_segments, second.audio_s) == (first.num_segments, first.audio_s)
    ends: dict[str, int] = {}
    for segment, _ in read_segments(staged_uri(place, shard)):
        assert segment.start_sample == ends.get(segment.recording_id, 0)
        ends[segment.recording_id] = segment.end_sample
    assert len(ends) == 3
