import json
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import boto3
import numpy as np
import pytest

from dgasr import store
from dgasr.errors import Reason
from dgasr.lake.location import open_lake
from dgasr.lake.upkeep import KEPT, sweep_staging
from dgasr.records import AudioReport, Recording, Segment, SegmentFeatures
from dgasr.stages import staging
from dgasr.stages.staging import Outcome, StagedPart, prefetch, read_outcomes, read_segments

RECORDING = Recording(uri="s3://a/b.wav", etag="e", size_bytes=3, modified_at=datetime(2026, 1, 2, tzinfo=UTC))
OUTCOMES = [
    Outcome(
        recording=RECORDING,
        status="partial",
        reason=Reason.TRUNCATED,
        message="ends early",
        num_segments=2,
        report=AudioReport(
            container="wav", codec="pcm", source_sample_rate_hz=8000, num_channels=2, declared_s=None, decoded_samples=9
        ),
    ),
    Outcome(recording=RECORDING, status="rejected", reason=Reason.EMPTY_FILE, message="empty"),
]


def segment(index: int, kind: str = "speech") -> Segment:
    return Segment(
        recording_id="r", segment_index=index, channel=0, start_sample=index, end_sample=index + 1, kind=kind, cut="end"
    )


def features(index: int, frames: int = 5) -> SegmentFeatures:
    log_mel = np.random.default_rng(index).standard_normal((80, frames)).astype(np.float16)
    return SegmentFeatures(segment=segment(index), log_mel=log_mel, pad_value=-1.5)


def write_part(uri: str, count: int = 3) -> None:
    with StagedPart(uri) as part:
        for index in range(count):
            part.add(segment(index), features(index))
        part.add(segment(count, "silence"), None)
        for outcome in OUTCOMES:
            part.finish(outcome)


def test_features_and_outcomes_come_back_to_the_bit_and_a_silent_segment_has_no_features(tmp_path: Path):
    write_part(f"{tmp_path}/part")
    *spoken, silent = read_segments(f"{tmp_path}/part")
    assert silent == (segment(3, "silence"), None)
    for index, (found, found_features) in enumerate(spoken):
        assert found == segment(index)
        assert (found_features.log_mel.dtype, found_features.pad_value) == (np.float16, -1.5)
        np.testing.assert_array_equal(found_features.log_mel, features(index).log_mel)
    assert read_outcomes(f"{tmp_path}/part") == OUTCOMES


def test_equal_segments_give_equal_bytes(tmp_path: Path):
    for name in ("one", "two"):
        write_part(f"{tmp_path}/{name}")
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two


def test_a_part_that_was_given_up_is_not_whole(tmp_path: Path):
    def give_up() -> None:
        with StagedPart(f"{tmp_path}/part") as part:
            part.add(segment(0), features(0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        give_up()
    assert read_outcomes(f"{tmp_path}/part") is None


def test_a_long_part_is_written_in_chunks_and_one_written_anew_holds_nothing_of_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(staging, "CHUNK_BYTES", 2 * 80 * 5 * 2)  # two segments
    for num_spoken, num_chunks in ((9, 5), (2, 2)):
        write_part(f"{tmp_path}/part", num_spoken)
        assert len(list((tmp_path / "part").glob("*.arrow"))) == num_chunks
        assert [found.segment_index for found, _ in read_segments(f"{tmp_path}/part")] == list(range(num_spoken + 1))
        (tmp_path / "part" / "outcomes.json").unlink()  # as if killed before the end


def age(part: Path, by: timedelta) -> None:
    for file in part.iterdir():
        written_s = file.stat().st_mtime - by.total_seconds()
        os.utime(file, (written_s, written_s))


def test_parts_that_killed_runs_left_behind_are_swept_away(tmp_path: Path):
    for name in ("old", "new"):
        write_part(f"{tmp_path}/staging/recipe/{name}")
    age(tmp_path / "staging" / "recipe" / "old", KEPT + timedelta(hours=1))
    sweep_staging(open_lake(str(tmp_path)), datetime.now(UTC) - KEPT)
    assert [path.parent.name for path in sorted(tmp_path.rglob("*")) if path.is_file()] == ["new", "new"]


def test_outcomes_of_a_newer_version_are_read_as_far_as_this_version_knows_them(tmp_path: Path):
    write_part(f"{tmp_path}/part")
    path = tmp_path / "part" / "outcomes.json"
    known, rows = read_outcomes(f"{tmp_path}/part"), json.loads(path.read_text())
    for row in rows:
        row |= {"loudness": -23.0}
        row["recording"] |= {"owner": "somebody"}
        if row["report"]:
            row["report"] |= {"bitrate": 64_000}
    path.write_text(json.dumps(rows))
    assert read_outcomes(f"{tmp_path}/part") == known


def test_a_long_runs_assignments_are_kept_as_long_as_it_has_a_heartbeat(tmp_path: Path):
    run = tmp_path / "staging" / "runs" / "r1"
    for name in ("assignments/00000.json", "heartbeats/parent.json"):
        store.write_bytes(f"{run}/{name}", b"{}")
    age(run / "assignments", KEPT + timedelta(hours=1))
    sweep_staging(open_lake(str(tmp_path)), datetime.now(UTC) - KEPT)
    assert (run / "assignments" / "00000.json").exists()
    age(run / "heartbeats", KEPT + timedelta(hours=1))
    sweep_staging(open_lake(str(tmp_path)), datetime.now(UTC) - KEPT)
    assert not [path for path in run.rglob("*") if path.is_file()]


def test_parts_in_s3_are_swept_away_likewise(s3_endpoint: str):
    boto3.client("s3").create_bucket(Bucket="sweep")
    write_part("s3://sweep/lake/staging/recipe/part")
    sweep_staging(open_lake("s3://sweep/lake"), datetime.now(UTC) - timedelta(hours=1))
    assert len(list(store.list_uris("s3://sweep/"))) == 2
    sweep_staging(open_lake("s3://sweep/lake"), datetime.now(UTC) + timedelta(hours=1))
    assert not [uri for uri in store.list_uris("s3://sweep/") if not uri.endswith("/")]


def test_items_come_in_order_and_what_the_source_raises_after_what_it_gave():
    def source() -> Iterator[int]:
        yield from range(100)
        raise ZeroDivisionError

    with prefetch(range(100), 3) as items:
        assert list(items) == list(range(100))
        assert list(items) == []
    with prefetch(source(), 3) as items:
        assert [next(items) for _ in range(100)] == list(range(100))
        with pytest.raises(ZeroDivisionError):
            next(items)


def test_the_thread_is_ahead_by_what_it_may_and_no_further():
    made: list[int] = []
    third_made = threading.Event()

    def source() -> Iterator[int]:
        for number in count():
            made.append(number)
            if number == 2:
                third_made.set()
            yield number

    with prefetch(source(), 2):
        assert third_made.wait(20)  # two wait in the queue, the third in hand
    assert made == [0, 1, 2]


def test_the_thread_ends_with_the_block_though_the_source_goes_on():
    before = threading.active_count()
    with prefetch(count(), 2) as items:
        next(items)
    assert threading.active_count() == before
