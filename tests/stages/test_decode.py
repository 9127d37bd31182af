from datetime import UTC, datetime
from pathlib import Path

import pytest

from dgasr.errors import TransientError
from dgasr.lake.views import connect
from dgasr.recipe import Recipe
from dgasr.records import Shard
from dgasr.stages.decode import ShardStream
from dgasr.stages.discover import list_recordings
from dgasr.stages.heartbeat import Progress
from dgasr.stages.prepare import prepare_shard
from dgasr.stages.staging import read_segments
from tests.stages.conftest import engine_of
from tests.stages.test_embedded import Noted


@pytest.fixture
def shard(archive: Path) -> Shard:
    return Shard(shard_id="s1", recordings=tuple(list_recordings([str(archive)])))


def decode(shard: Shard, recipe: Recipe, tmp_path: Path, transcriber, run_id: str = "run1"):
    lake, staged = f"{tmp_path}/lake", f"{tmp_path}/staged"
    return ShardStream(recipe, engine_of(recipe, transcriber), lake, lambda shard: staged, run_id, Progress()).run(
        [shard]
    )


def test_two_workers_on_a_shard_commit_it_once(shard: Shard, recipe: Recipe, tmp_path: Path, transcriber):
    prepare_shard(shard, recipe, f"{tmp_path}/staged")
    assert decode(shard, recipe, tmp_path, transcriber).num_held == 0
    prepare_shard(shard, recipe, f"{tmp_path}/staged")
    assert decode(shard, recipe, tmp_path, transcriber, run_id="run2").num_held == 1
    with connect(f"{tmp_path}/lake") as connection:
        assert connection.execute("select distinct run_id, count(*) from recordings group by all").fetchall() == [
            ("run1", 4)
        ]


def test_a_part_that_is_gone_may_be_tried_again(shard: Shard, recipe: Recipe, tmp_path: Path, transcriber):
    with pytest.raises(TransientError, match="Prepare the shard again"):
        decode(shard, recipe, tmp_path, transcriber)


def test_preparing_twice_stages_equal_segments(shard: Shard, recipe: Recipe, tmp_path: Path):
    for name in ("one", "two"):
        prepare_shard(shard, recipe, f"{tmp_path}/{name}")
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / name).glob("*.arrow")} for name in ("one", "two"))
    assert one
    assert one == two


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


def test_a_file_that_was_written_to_again_is_a_new_recording(archive: Path):
    (before,) = list_recordings([str(archive / "b.wav")])
    (archive / "b.wav").write_bytes((archive / "a.flac").read_bytes())
    (after,) = list_recordings([str(archive / "b.wav")])
    assert before.recording_id != after.recording_id
    assert after.modified_at > datetime(2020, 1, 1, tzinfo=UTC)
