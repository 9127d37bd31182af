"""Decoding: one model, one stream, threads ahead and behind, and processes that are really killed."""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from dgasr import transcriber as transcriber_module
from dgasr.errors import ConfigError, TransientError
from dgasr.lake.views import connect
from dgasr.recipe import Recipe
from dgasr.records import SegmentFeatures, SegmentTranscript, Shard, silent_transcript
from dgasr.samples import SAMPLES
from dgasr.stages import decode as decode_module
from dgasr.stages.decode import ShardStream, decode_assignment
from dgasr.stages.discover import Listing
from dgasr.stages.engine import EngineConfig, recipe_of, start_engine
from dgasr.stages.heartbeat import HeartbeatWriter, Progress, read_heartbeat
from dgasr.stages.isolation import Processes
from dgasr.stages.plan import AssignmentConfig, write_assignments
from dgasr.stages.prepare import prepare_shard
from dgasr.stages.staging import delete_part, read_segments, staged_uri_of
from tests.stages.conftest import engine_of
from tests.stages.deadly import DeadlyEngine, decode_or_die
from tests.stages.test_embedded import Noted

WAIT_S = 20
"""How long a thread that should come may take."""


@pytest.fixture
def lake_uri(tmp_path: Path) -> str:
    return f"{tmp_path}/lake"


@pytest.fixture
def shards(archive: Path) -> list[Shard]:
    """Four shards: two of them whole, one cut off, one without any audio."""
    found = Listing([str(archive)])
    return [Shard(shard_id=f"s{n}", recordings=(recording,)) for n, recording in enumerate(found)]


def stage(shards: list[Shard], recipe: Recipe, lake_uri: str) -> str:
    """Prepare shards and assign them."""
    for shard in shards:
        prepare_shard(shard, recipe, staged_uri_of(lake_uri, recipe.recipe_id, shard))
    ((uri, _),) = write_assignments(shards, f"{lake_uri}/staging/runs/r1/assignments", AssignmentConfig())
    return uri


def decode(uri: str, recipe: Recipe, engine, lake_uri: str, **shards: frozenset[str]):
    with HeartbeatWriter(f"{lake_uri}/heartbeat.json", interval_s=60) as heartbeat:
        return decode_assignment(uri, recipe, engine, lake_uri, "run1", progress=heartbeat, **shards)


def rows(lake_uri: str) -> list[tuple]:
    with connect(lake_uri) as connection:
        return connection.execute(
            "select split_part(uri, '/', -1), status, reason from recordings order by uri"
        ).fetchall()


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
    lake_uri: str, monkeypatch: pytest.MonkeyPatch
):
    files = [f"{SAMPLES}/{name}" for name in ("american_man.flac", "american_woman.mp3", "silence.flac")]
    shards = [Shard(shard_id=f"s{n}", recordings=(found,)) for n, found in enumerate(Listing(files))]
    config = EngineConfig(device="cpu", batch_size=4, max_steps=2)
    recipe, loads, load = recipe_of(config), [], transcriber_module.load
    monkeypatch.setattr(
        transcriber_module, "load", lambda *names, **options: loads.append(1) or load(*names, **options)
    )
    uri = stage(shards, recipe, lake_uri)
    start_engine.cache_clear()
    decoded = decode(uri, recipe, partial(start_engine, config), lake_uri)
    assert (decoded.num_shards, decoded.num_held, decoded.num_recordings, len(loads)) == (3, 0, 3, 1)
    start_engine.cache_clear()
    assert decode(uri, recipe, partial(start_engine, config), lake_uri).num_held == 3
    assert len(loads) == 1


def test_segments_of_all_shards_go_through_the_model_in_one_stream(shards: list[Shard], recipe: Recipe, lake_uri: str):
    listener = Listener()
    decode(stage(shards, recipe, lake_uri), recipe, engine_of(recipe, listener), lake_uri)
    assert len(listener.calls) == 1
    assert list(dict.fromkeys(listener.calls[0])) == [s.recordings[0].recording_id for s in shards[:3]]
    assert [row[1] for row in rows(lake_uri)] == ["ok", "ok", "partial", "rejected"]
    last = read_heartbeat(f"{lake_uri}/heartbeat.json")
    assert (last.line, last.shard_ids) == ("4 shards done", ())


def test_the_next_shard_is_fetched_while_the_model_works(
    shards: list[Shard], recipe: Recipe, lake_uri: str, monkeypatch: pytest.MonkeyPatch
):
    fetched = {shard.shard_id: threading.Event() for shard in shards}

    def read_and_note(uri: str):
        yield from read_segments(uri)
        fetched[uri.rpartition("/")[2]].set()

    monkeypatch.setattr(decode_module, "read_segments", read_and_note)
    waited = []
    listener = Listener(lambda item: waited.append(fetched["s2"].wait(WAIT_S)))
    decode(stage(shards, recipe, lake_uri), recipe, engine_of(recipe, listener), lake_uri)
    assert waited[0]


def test_a_shard_is_committed_while_the_model_works_on_the_next(shards: list[Shard], recipe: Recipe, lake_uri: str):
    committed = threading.Event()

    class Committed(Progress):
        def end_shard(self, shard_id, counts) -> None:
            committed.set()

    second = shards[1].recordings[0].recording_id
    waited = []
    listener = Listener(lambda item: item.segment.recording_id == second and waited.append(committed.wait(WAIT_S)))
    stage(shards, recipe, lake_uri)
    staged_uris = partial(staged_uri_of, lake_uri, recipe.recipe_id)
    ShardStream(recipe, engine_of(recipe, listener), lake_uri, staged_uris, "run1", Committed()).run(shards[:2])
    assert waited[0]


def test_the_busy_share_is_the_time_in_which_the_model_did_not_wait_for_features(
    shards: list[Shard], recipe: Recipe, lake_uri: str, monkeypatch: pytest.MonkeyPatch
):
    clock = SimpleNamespace(now=100.0)

    def pass_s(duration_s: float) -> None:
        clock.now += duration_s

    class Slow:
        """Makes each segment wait for two seconds, in the thread that asks."""

        def __init__(self, source, num_ahead) -> None:
            self._source = (item for item in source if item[2] is not None)

        __enter__ = __iter__ = lambda self: self

        def __exit__(self, *error) -> None: ...

        def __next__(self):
            pass_s(2.0)
            return next(self._source)

    monkeypatch.setattr(decode_module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(decode_module, "Prefetch", Slow)
    monkeypatch.setattr(decode_module.ShardTranscripts, "is_complete", False)
    stage(shards, recipe, lake_uri)
    staged_uris = partial(staged_uri_of, lake_uri, recipe.recipe_id)
    listener = Listener(lambda item: pass_s(8.0))
    stream = ShardStream(recipe, engine_of(recipe, listener), lake_uri, staged_uris, "run1", Progress())
    counts = stream.run(shards)
    count = len(listener.calls[0])
    # The first wait comes before the first segment, and the last one after the last.
    assert counts.busy_share == pytest.approx(1 - 2 * (count - 1) / (10 * count - 2), abs=0.02)


def test_a_shard_that_is_not_staged_holds_up_no_other(shards: list[Shard], recipe: Recipe, lake_uri: str):
    uri = stage(shards, recipe, lake_uri)
    delete_part(staged_uri_of(lake_uri, recipe.recipe_id, shards[1]))
    with pytest.raises(TransientError, match="s1: no whole part lies here"):
        decode(uri, recipe, engine_of(recipe, Listener()), lake_uri)
    assert [row[0] for row in rows(lake_uri)] == ["a.flac", "cut.wav", "text.mp3"]


@pytest.mark.parametrize("is_short", [True, False])
def test_a_part_with_other_segments_than_it_says_is_prepared_again(shards, recipe, lake_uri, is_short):
    uri = stage(shards, recipe, lake_uri)
    part = Path(staged_uri_of(lake_uri, recipe.recipe_id, shards[0]))
    if is_short:
        next(part.glob("*.arrow")).unlink()
    else:
        (part / "00001.arrow").write_bytes((part / "00000.arrow").read_bytes())
    with pytest.raises(TransientError, match="holds other segments than it says"):
        decode(uri, recipe, engine_of(recipe, Listener()), lake_uri)
    assert not [path for path in part.rglob("*") if path.is_file()]
    assert [row[0] for row in rows(lake_uri)] == ["b.wav", "cut.wav", "text.mp3"]


def test_what_was_fetched_before_storage_failed_is_committed(
    shards: list[Shard], recipe: Recipe, lake_uri: str, monkeypatch: pytest.MonkeyPatch
):
    def read_or_fail(uri: str):
        if uri.endswith("s1"):
            raise TransientError("no answer")
        return read_segments(uri)

    monkeypatch.setattr(decode_module, "read_segments", read_or_fail)
    with pytest.raises(TransientError, match="no answer"):
        decode(stage(shards, recipe, lake_uri), recipe, engine_of(recipe, Listener()), lake_uri)
    assert [row[0] for row in rows(lake_uri)] == ["a.flac"]


def test_a_machine_with_another_model_is_refused(shards: list[Shard], recipe: Recipe, lake_uri: str):
    other = recipe_of(EngineConfig())
    with pytest.raises(ConfigError, match=f"follows recipe {other.recipe_id}"):
        decode(stage(shards, recipe, lake_uri), recipe, engine_of(other, Listener()), lake_uri)


def test_silence_alone_loads_no_model(tmp_path: Path, recipe: Recipe, lake_uri: str):
    soundfile.write(tmp_path / "silence.wav", np.zeros(5 * 16_000), 16_000)
    shard = Shard(shard_id="s1", recordings=tuple(Listing([f"{tmp_path}/silence.wav"])))

    def load():
        raise AssertionError("the model is loaded")

    counts = decode(stage([shard], recipe, lake_uri), recipe, load, lake_uri)
    assert (counts.num_recordings, counts.busy_share) == (1, None)
    assert rows(lake_uri) == [("silence.wav", "ok", None)]


def test_a_suspect_is_decoded_alone_after_the_others(shards: list[Shard], recipe: Recipe, lake_uri: str):
    listener = Listener()
    uri = stage(shards, recipe, lake_uri)
    decode(uri, recipe, engine_of(recipe, listener), lake_uri, suspects=frozenset({"s0"}))
    names = [list(dict.fromkeys(call)) for call in listener.calls]
    ids = [shard.recordings[0].recording_id for shard in shards]
    assert names == [ids[1:3], ids[:1]]


def test_a_process_that_dies_over_a_suspect_names_it_alone_and_leaves_the_others_committed(
    shards: list[Shard], recipe: Recipe, lake_uri: str
):
    uri = stage(shards, recipe, lake_uri)
    engine = DeadlyEngine(recipe, deadly=(shards[0].recordings[0].recording_id,))
    with Processes(1, lambda count: None) as processes:
        assert processes.run(decode_or_die, uri, recipe, engine, lake_uri, frozenset({"s0"})) is None
    assert read_heartbeat(f"{lake_uri}/heartbeat.json").shard_ids == ("s0",)
    assert [row[0] for row in rows(lake_uri)] == ["b.wav", "cut.wav", "text.mp3"]


def test_recordings_of_a_shard_that_ends_processes_get_rows_with_a_reason(archive: Path, recipe: Recipe, lake_uri: str):
    found = list(Listing([str(archive)]))
    shards = [Shard(shard_id="s1", recordings=(found[0], found[3])), Shard(shard_id="s2", recordings=(found[1],))]
    uri = stage(shards, recipe, lake_uri)
    engine = DeadlyEngine(recipe, deadly=(found[0].recording_id,))
    counts = decode(uri, recipe, engine, lake_uri, rejected=frozenset({"s1"}))
    assert (counts.num_shards, counts.num_recordings, counts.num_rejected) == (2, 3, 2)
    assert rows(lake_uri) == [
        ("a.flac", "rejected", "crashes_decoder"),
        ("b.wav", "ok", None),
        ("text.mp3", "rejected", "unknown_format"),
    ]


def test_a_kept_recording_carries_its_digest_its_time_and_its_take(shards: list[Shard], recipe: Recipe, lake_uri: str):
    taken = [Shard(shard_id=s.shard_id, recordings=s.recordings, take=2) for s in shards]
    decode(stage(taken, recipe, lake_uri), recipe, engine_of(recipe, Listener()), lake_uri)
    with connect(lake_uri) as connection:
        found = connection.execute(
            "select audio_digest is null, read_s > 0, take from recordings order by uri"
        ).fetchall()
    assert found == [(False, True, 2)] * 3 + [(True, True, 2)]


@pytest.fixture
def shard(archive: Path) -> Shard:
    return Shard(shard_id="s1", recordings=tuple(Listing([str(archive)])))


def decode_one(shard: Shard, recipe: Recipe, tmp_path: Path, transcriber, run_id: str = "run1"):
    lake, staged = f"{tmp_path}/lake", f"{tmp_path}/staged"
    return ShardStream(recipe, engine_of(recipe, transcriber), lake, lambda shard: staged, run_id, Progress()).run(
        [shard]
    )


def test_two_workers_on_a_shard_commit_it_once(shard: Shard, recipe: Recipe, tmp_path: Path, transcriber):
    prepare_shard(shard, recipe, f"{tmp_path}/staged")
    assert decode_one(shard, recipe, tmp_path, transcriber).num_held == 0
    prepare_shard(shard, recipe, f"{tmp_path}/staged")
    assert decode_one(shard, recipe, tmp_path, transcriber, run_id="run2").num_held == 1
    with connect(f"{tmp_path}/lake") as connection:
        assert connection.execute("select distinct run_id, count(*) from recordings group by all").fetchall() == [
            ("run1", 4)
        ]


def test_a_whole_part_is_not_prepared_again(shard: Shard, recipe: Recipe, tmp_path: Path):
    first = prepare_shard(shard, recipe, f"{tmp_path}/staged")
    noted = Noted()
    second = prepare_shard(shard, recipe, f"{tmp_path}/staged", noted)
    assert not noted.events
    assert (second.num_segments, second.audio_s) == (first.num_segments, first.audio_s)


def test_staged_segments_cover_each_recording_exactly(shard: Shard, recipe: Recipe, tmp_path: Path):
    prepare_shard(shard, recipe, f"{tmp_path}/staged")
    ends: dict[str, int] = {}
    for segment, _ in read_segments(f"{tmp_path}/staged"):
        assert segment.start_sample == ends.get(segment.recording_id, 0)
        ends[segment.recording_id] = segment.end_sample
    assert len(ends) == 3
