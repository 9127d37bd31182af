"""Preparing an assignment in spawned processes, some of which are really killed by what they read."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile

from dgasr.errors import Reason, TransientError
from dgasr.lake.ledger import commit_shard
from dgasr.recipe import Recipe
from dgasr.records import SAMPLE_RATE_HZ, Shard
from dgasr.stages import prepare
from dgasr.stages.counts import Counts
from dgasr.stages.decode import ShardTranscripts
from dgasr.stages.discover import Listing
from dgasr.stages.heartbeat import HeartbeatWriter, read_heartbeat
from dgasr.stages.prepare import prepare_assignment, prepare_shard
from dgasr.stages.staging import Outcome, read_outcomes, read_segments, staged_uri_of
from tests.stages import deadly
from tests.stages.conftest import Place

ROOT = Path(__file__).parents[2]


@pytest.fixture
def shards(place: Place) -> list[Shard]:
    """Two shards of two recordings each."""
    return place.shards(2)


def run(shards: list[Shard], place: Place) -> Counts:
    with HeartbeatWriter(f"{place.lake}/heartbeat.json", interval_s=60) as heartbeat:
        return prepare_assignment(place.assign(shards), place.recipe, place.lake, num_processes=2, heartbeat=heartbeat)


def outcomes_of(shard: Shard, place: Place) -> dict[str, Outcome]:
    found = read_outcomes(staged_uri_of(place.lake, place.recipe.recipe_id, shard))
    return {Path(outcome.recording.uri).name: outcome for outcome in found}


def test_an_assignment_is_staged_as_its_shards_are_one_by_one(shards: list[Shard], place: Place):
    prepared = run(shards, place)
    assert (prepared.num_shards, prepared.num_shards_held) == (2, 0)
    assert (prepared.num_recordings, prepared.num_rejected) == (4, 1)
    for shard in shards:
        prepare_shard(shard, place.recipe, f"{place.lake}/alone/{shard.shard_id}")
        staged = staged_uri_of(place.lake, place.recipe.recipe_id, shard)
        alone = [segment for segment, _ in read_segments(f"{place.lake}/alone/{shard.shard_id}")]
        assert [segment for segment, _ in read_segments(staged)] == alone
    last = read_heartbeat(f"{place.lake}/heartbeat.json")
    assert (last.line, last.shard_ids, last.num_done > 0) == ("2 shards done", (), True)


def test_nothing_is_read_of_a_shard_that_is_committed(shards: list[Shard], place: Place):
    prepare_shard(shards[1], place.recipe, f"{place.lake}/part")
    rejected = [outcome for outcome in read_outcomes(f"{place.lake}/part") if outcome.status == "rejected"]
    only = Shard(shard_id="s9", recordings=(rejected[0].recording,))
    now = only.recordings[0].modified_at
    commit_shard(place.lake, ShardTranscripts(only, rejected).rows(place.recipe, "r0", now))
    prepared = run([only], place)
    assert (prepared.num_shards, prepared.num_shards_held, prepared.num_recordings) == (1, 1, 0)


def test_a_recording_that_ends_its_process_is_rejected_and_its_neighbours_are_not(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(deadly.DEADLY_AUDIO)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}/hook{os.pathsep}{ROOT}")
    (place.archive / "a.flac").rename(place.archive / "deadly.flac")
    found = {Path(r.uri).name: r for r in Listing([str(place.archive)])}
    killing = Shard(shard_id="s1", recordings=(found["b.wav"], found["deadly.flac"]))
    neighbour = Shard(shard_id="s2", recordings=(found["cut.wav"],))
    prepared = run([killing, neighbour], place)
    assert (prepared.num_shards, prepared.num_recordings, prepared.num_rejected) == (2, 3, 1)
    outcomes = outcomes_of(killing, place)
    assert outcomes["b.wav"].status == "ok"
    rejected = outcomes["deadly.flac"]
    assert (rejected.status, rejected.reason) == ("rejected", Reason.CRASHES_DECODER)
    assert "each time it was tried alone. Convert it to FLAC" in rejected.message
    assert outcomes_of(neighbour, place)["cut.wav"].status == "partial"


def test_a_recording_whose_reading_fails_as_nobody_foresaw_is_rejected_with_the_fault_in_its_message(
    shards: list[Shard], recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
):
    open_audio = prepare.open_audio

    def fail(file, name, config):
        if name.endswith("a.flac"):
            raise ZeroDivisionError("no samples a second")
        return open_audio(file, name, config)

    monkeypatch.setattr(prepare, "open_audio", fail)
    prepare_shard(shards[0], recipe, f"{tmp_path}/part")
    bad, good = read_outcomes(f"{tmp_path}/part")
    assert (bad.status, bad.reason, good.status) == ("rejected", Reason.CRASHES_DECODER, "ok")
    assert "ZeroDivisionError('no samples a second')" in bad.message
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("error", [MemoryError(), TransientError("no answer")])
def test_lack_of_memory_and_failing_storage_are_no_fault_of_a_recording(
    shards: list[Shard], recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    def fail(recording):
        raise error

    monkeypatch.setattr(prepare, "open_object", fail)
    with pytest.raises(type(error)):
        prepare_shard(shards[0], recipe, f"{tmp_path}/part")
    assert read_outcomes(f"{tmp_path}/part") is None


def test_equal_audio_has_an_equal_digest_in_another_container(tmp_path: Path, recipe: Recipe, make_audio: Callable):
    audio, folder = (make_audio(2.0) * 32767).astype("<i2"), tmp_path / "archive"
    folder.mkdir()
    for name in ("a.wav", "b.flac", "c.aiff"):
        soundfile.write(folder / name, audio, SAMPLE_RATE_HZ)
    soundfile.write(folder / "d.wav", -audio, SAMPLE_RATE_HZ)
    soundfile.write(folder / "e.wav", audio[:-1], SAMPLE_RATE_HZ)
    prepare_shard(Shard(shard_id="s", recordings=tuple(Listing([str(folder)]))), recipe, f"{tmp_path}/part")
    digests = [outcome.audio_digest for outcome in read_outcomes(f"{tmp_path}/part")]
    assert digests[0] == digests[1] == digests[2]
    assert len(set(digests)) == 3
    assert len(digests[0]) == 32
