"""Records become rows."""

from dgasr.errors import Reason
from dgasr.lake.rows import recording_row, run_row
from dgasr.lake.schema import RECORDINGS, RUNS, SEGMENTS
from dgasr.records import AudioReport


def test_rows_have_exactly_the_declared_columns(three_recordings):
    assert all(list(row) == RECORDINGS.names for row in three_recordings.recordings)
    assert all(list(row) == SEGMENTS.names for row in three_recordings.segments)


def test_speech_and_dropped_time_add_up_to_the_decoded(three_recordings):
    row = three_recordings.recordings[0]
    assert (row["speech_s"], row["dropped_s"], row["decoded_s"], row["num_words"]) == (8.0, 2.0, 10.0, 5)


def test_a_rejected_recording_counts_nothing_as_decoded(recording, day):
    report = AudioReport(
        container="WAV",
        codec="FLOAT",
        source_sample_rate_hz=8000,
        num_channels=1,
        declared_s=9.0,
        decoded_samples=16_000,
    )
    row = recording_row(
        recording,
        shard_id="s1",
        run_id="run1",
        transcribed_at=day,
        status="rejected",
        reason=Reason.NOT_FINITE,
        message="m",
        report=report,
    )
    assert (row["decoded_s"], row["declared_s"], row["reason"], row["language"]) == (0.0, 9.0, "not_finite", None)


def test_a_run_counts_recordings_by_status(day):
    row = run_row(
        run_id="r",
        recipe_id="f00d",
        recipe_json="{}",
        versions_json="{}",
        source="/a",
        device="cpu",
        started_at=day,
        recordings={"ok": 4, "rejected": 1},
        num_segments=1,
        num_words=1,
        audio_s=30.0,
        wall_s=2.0,
        peak_memory_bytes=1,
    )
    assert list(row) == RUNS.names
    assert (row["num_recordings"], row["num_partial"], row["num_rejected"], row["rtfx"]) == (5, 0, 1, 15.0)
