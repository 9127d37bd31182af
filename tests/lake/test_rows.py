"""Records become rows."""

import json

import pyarrow.parquet as pq

from dgasr.errors import Reason
from dgasr.lake.ledger import append_rows
from dgasr.lake.rows import evaluation_row, presence_rows, recording_row
from dgasr.lake.schema import EVALUATIONS, PRESENCE, RECORDINGS, RUNS, SEGMENTS, TABLES, VIEWS, table_schema
from tests.lake.conftest import report_of


def test_every_column_says_what_it_is_and_units_are_in_the_name():
    units = {"_s": "s", "_hz": "Hz", "_bytes": "byte", "_id": None, "_at": None}
    for name in (*TABLES, *VIEWS):
        for field in table_schema(name):
            assert field.metadata[b"comment"], field.name
            for ending, unit in units.items():
                if unit and field.name.endswith(ending):
                    assert field.metadata[b"unit"].decode() == unit, field.name


def test_rows_have_exactly_the_declared_columns(three_recordings):
    assert all(sorted(row) == sorted(RECORDINGS.names) for row in three_recordings.recordings)
    assert all(sorted(row) == sorted(SEGMENTS.names) for row in three_recordings.segments)


def test_speech_and_dropped_time_add_up_to_the_decoded(three_recordings):
    row = three_recordings.recordings[0]
    assert (row["speech_s"], row["dropped_s"], row["decoded_s"], row["num_words"]) == (8.0, 2.0, 10.0, 5)


def test_a_rejected_recording_counts_nothing_as_decoded(recording, day):
    whose = {"shard_id": "s1", "run_id": "run1", "transcribed_at": day}
    report = report_of("WAV", "FLOAT", 8000, 1, 9.0, 16_000)
    row = recording_row(recording, **whose, status="rejected", reason=Reason.NOT_FINITE, message="m", report=report)
    assert (row["decoded_s"], row["declared_s"], row["reason"], row["language"]) == (0.0, 9.0, "not_finite", None)


def test_a_run_has_the_declared_columns(make_run):
    row = make_run(audio_s=30.0, wall_s=2.0)
    assert (sorted(row), row["rtfx"], row["stage"]) == (sorted(RUNS.names), 15.0, None)


FIGURES = {
    "wer": 0.1, "cer": 0.05, "edits": {"substitutions": 1, "deletions": 2, "insertions": 3, "reference_words": 60},
    "num_utterances": 9, "num_flagged": 1, "failures": [{"audio_filepath": "a.wav", "message": "m"}], "audio_s": 30.0,
    "wall_s": 2.0, "rtfx": 15.0, "steps": 8, "path": "diffusion", "normalizer": "basic", "metric": "wer",
}  # fmt: skip


def test_an_evaluation_has_the_declared_columns_and_all_figures_as_json_and_is_written_once(tmp_path, day):
    identity = {"run_id": "e1", "recipe_id": "f00d", "manifest": "m.jsonl", "manifest_digest": "00"}
    row = evaluation_row(FIGURES, **identity, started_at=day)
    assert sorted(row) == sorted(EVALUATIONS.names)
    assert (row["num_insertions"], row["num_failures"], row["max_steps"]) == (3, 1, 8)
    assert json.loads(row["figures"]) == FIGURES
    assert [append_rows(str(tmp_path), "evaluations", [row]) for _ in range(2)] == [True, False]
    (path,) = tmp_path.glob("evaluations/date=2026-01-02/*.parquet")
    assert pq.read_table(path).column("wer").to_pylist() == [0.1]


def test_what_a_run_noticed_is_written_once_and_nothing_without_rows(tmp_path, day):
    rows = presence_rows([("/a/one", None), ("/a/two", None)], "deleted", noticed_at=day, run_id="r")
    assert [list(row) for row in rows] == [PRESENCE.names] * 2
    assert [append_rows(str(tmp_path), "presence", found) for found in ([], rows, rows)] == [False, True, False]
    (path,) = tmp_path.glob("presence/*/*.parquet")
    assert pq.read_table(path).column("uri").to_pylist() == ["/a/one", "/a/two"]
