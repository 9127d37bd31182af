"""A lake of three recordings, small enough to know every answer by hand."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest

from dgasr.errors import Reason
from dgasr.lake.ledger import append_rows, commit_shard
from dgasr.lake.rows import ShardRows, recording_row, run_row, segment_row
from dgasr.records import AudioReport, Recording, Segment, SegmentTranscript, Word

DAY = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RECIPE = "f00d"

# kind, start s, end s, text, confidence, flags; words share the segment's time evenly, with its confidence
ONE = [
    ("speech", 0, 6, "One two, two", 0.96, ()),
    ("silence", 6, 8, "", None, ()),
    ("speech", 8, 10, "forty two", 0.55, ("repetition",)),
]
TWO = [("speech", 0, 1.5, "three", 1.0, ()), ("silence", 1.5, 2, "", None, ())]


def transcripts_of(recording: Recording, pieces: list[tuple]) -> list[SegmentTranscript]:
    """Make transcripts of a recording from lines like those above."""
    found = []
    for index, (kind, start_s, end_s, text, confidence, flags) in enumerate(pieces):
        start, end, texts = int(start_s * 16_000), int(end_s * 16_000), text.split()
        step = (end - start) // max(len(texts), 1)
        words = tuple(
            Word(word=w, start_sample=start + i * step, end_sample=start + (i + 1) * step, confidence=confidence)
            for i, w in enumerate(texts)
        )
        segment = Segment(
            recording_id=recording.recording_id, segment_index=index, channel=0, start_sample=start, end_sample=end,
            kind=kind, cut="end" if index == len(pieces) - 1 else "silence",
        )  # fmt: skip
        transcript = SegmentTranscript(
            segment=segment, text=text, language="en", words=words, timing_source="ctc" if words else "none",
            confidence=confidence, flags=flags, num_steps=4 if words else 0, canvas_tokens=16 if words else 0,
        )  # fmt: skip
        found.append(transcript)
    return found


def recording_at(uri: str, etag: str = "v1", modified_at: datetime = DAY) -> Recording:
    return Recording(uri=uri, etag=etag, size_bytes=1000, modified_at=modified_at)


def report_of(container: str, codec: str, rate_hz: int, num_channels: int, declared_s: float, samples: int):
    return AudioReport(
        container=container, codec=codec, source_sample_rate_hz=rate_hz, num_channels=num_channels,
        declared_s=declared_s, decoded_samples=samples,
    )  # fmt: skip


def shard_of(
    shard_id: str = "s1",
    uri: str = "/a/one.flac",
    etag: str = "v1",
    run_id: str = "run1",
    pieces: list[tuple] = ONE,
    modified_at: datetime = DAY,
    transcribed_at: datetime = DAY,
    recipe_id: str = RECIPE,
) -> ShardRows:
    """Make the rows of a shard with one good recording."""
    recording = recording_at(uri, etag, modified_at)
    transcripts = transcripts_of(recording, pieces)
    samples = transcripts[-1].segment.end_sample
    row = recording_row(
        recording, shard_id=shard_id, run_id=run_id, transcribed_at=transcribed_at, status="ok",
        report=report_of("FLAC", "PCM_16", 44_100, 2, samples / 16_000, samples), transcripts=transcripts,
    )  # fmt: skip
    segments = [segment_row(t, shard_id=shard_id) for t in transcripts]
    return ShardRows(recipe_id=recipe_id, shard_id=shard_id, run_id=run_id, recordings=[row], segments=segments)


@pytest.fixture(scope="session")
def make_shard() -> Callable[..., ShardRows]:
    """Function that makes the rows of a shard."""
    return shard_of


def three_of() -> ShardRows:
    """Make the rows of one good, one partial and one rejected recording."""
    shard, whose = shard_of(), {"shard_id": "s1", "run_id": "run1", "transcribed_at": DAY}
    two, three = recording_at("/a/two.mp3"), recording_at("/a/three.txt")
    transcripts = transcripts_of(two, TWO)
    partial = recording_row(
        two, **whose, status="partial", reason=Reason.TRUNCATED, message="/a/two.mp3: ends after 2 s of 5 s.",
        report=report_of("MP3", "MP3", 8000, 1, 5.0, 32_000), transcripts=transcripts,
    )  # fmt: skip
    rejected = recording_row(
        three, **whose, status="rejected", reason=Reason.UNKNOWN_FORMAT, message="/a/three.txt: no decoder knows it."
    )
    return replace(
        shard,
        recordings=[*shard.recordings, partial, rejected],
        segments=[*shard.segments, *(segment_row(t, shard_id="s1") for t in transcripts)],
    )


@pytest.fixture(scope="session")
def three_recordings() -> ShardRows:
    """Rows of one good, one partial and one rejected recording."""
    return three_of()


def write_two_days(lake: str) -> None:
    """Write these three recordings, one more on the next day, and the run that made them."""
    commit_shard(lake, three_of())
    commit_shard(lake, shard_of("s2", "/a/four.flac", pieces=TWO, modified_at=DAY + timedelta(days=1)))
    append_rows(lake, "runs", [run_of()])


@pytest.fixture(scope="session")
def small_lake(tmp_path_factory: pytest.TempPathFactory, three_recordings: ShardRows) -> str:
    """A lake with these three recordings and the run that made them; read it, never write to it."""
    lake = str(tmp_path_factory.mktemp("small") / "lake")
    commit_shard(lake, three_recordings)
    append_rows(lake, "runs", [run_of()])
    return lake


@pytest.fixture
def empty_lake(tmp_path: Path) -> str:
    """A folder with nothing in it."""
    (tmp_path / "lake").mkdir()
    return str(tmp_path / "lake")


def run_of(**changes: object) -> dict:
    """Make the row of the run that made the three recordings, but for what is changed."""
    columns: dict = {
        "run_id": "run1", "recipe_id": RECIPE, "recipe": "{}", "versions": "{}", "source": "/a", "device": "cpu",
        "started_at": DAY, "num_recordings": 3, "num_partial": 1, "num_rejected": 1, "num_segments": 5, "num_words": 6,
        "audio_s": 12.0, "wall_s": 3.0, "peak_memory_bytes": 500_000_000,
    }  # fmt: skip
    return run_row(**columns | changes)


@pytest.fixture(scope="session")
def make_run() -> Callable[..., dict]:
    """Function that makes the row of a run, of the columns that are given and defaults."""
    return run_of


@pytest.fixture
def s3_lake(s3_endpoint: str, request: pytest.FixtureRequest) -> str:
    """A prefix with nothing under it, in a bucket that exists."""
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    client.create_bucket(Bucket="lake-tests")
    return f"s3://lake-tests/{request.node.name}"


@pytest.fixture
def recording() -> Recording:
    """Some version of some object."""
    return recording_at("/a/one.flac")


@pytest.fixture(scope="session")
def day() -> datetime:
    """When everything in these tests happened."""
    return DAY
