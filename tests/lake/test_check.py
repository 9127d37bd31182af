"""What `dgasr lake check` finds, and what no shard with such a fault gets past: the same rules, in SQL."""

import os
import shutil
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import write_deltalake

from dgasr.errors import IntegrityError
from dgasr.lake import ledger
from dgasr.lake.check import check_lake
from dgasr.lake.ledger import append_rows, commit_shard, commit_transcripts, shard_table
from dgasr.lake.rows import presence_rows
from dgasr.lake.upkeep import forget_partition
from tests.lake.reading import file_of

RECORDING_FAULTS = [
    ("value", {"status": "fine"}, "status is fine"),
    ("value", {"status": "partial", "reason": "bad luck", "message": "m"}, "reason is bad luck"),
    ("status", {"status": "partial"}, "is partial with reason null"),
    ("status", {"reason": "truncated", "message": "m"}, "is ok with reason truncated"),
    ("status", {"message": "m"}, "is ok with reason null, message m"),
    ("status", {"status": "rejected", "reason": "truncated", "message": "m"}, "is rejected with reason truncated"),
    ("value", {"etag": None}, "etag is null"),
    ("num_segments", {"num_segments": 2}, "says num_segments=2, and 3 are there"),
    ("num_words", {"num_words": 4}, "says num_words=4, and 5 are there"),
    ("cover", {"decoded_s": 10.5, "dropped_s": 2.5}, "up to sample 160000, and was decoded up to 168000"),
    ("speech_and_dropped", {"speech_s": 8.5}, "speech_s 8.5"),
    ("shard", {"shard_id": "s9"}, "is of shard s9, and a segment of it of shard s1"),
]

SEGMENT_FAULTS = [
    ("cover", {"start_s": 6.5}, "begins at sample 104000, ends at 128000, and the one before ends at 96000"),
    ("cover", {"end_s": 6.0}, "begins at sample 128000, ends at 160000, and the one before ends at 96000"),
    ("segment_index", {"segment_index": 5}, "runs from 0 to 5 over 3 segments"),
    ("value", {"kind": "music"}, "kind is music"),
    ("confidence", {"confidence": 1.5}, "a confidence outside"),
    ("value", {"text": None}, "text is null"),
    ("confidence", {"words": [{"word": "x", "start_s": 7.0, "end_s": 7.5, "confidence": 2.0}]}, "a confidence outside"),
]

SEGMENT_FAULTS += [
    ("words", {"words": [{"word": "x", "start_s": a, "end_s": b, "confidence": 1.0} for a, b in times]}, "out of order")
    for times in (
        [(7.0, 6.5)],  # ends before its start
        [(6.0, 7.0), (6.9, 7.5)],  # overlap
        [(5.9, 6.5)],  # begins before its segment
        [(6.0, 6.5), (7.0, 8.5)],  # leaves it
        [(7.0, 7.5), (6.1, 6.5), (7.6, 7.7)],
    )
]


def kinds(lake, severity="fault", is_deep=False):
    return sorted({found.kind for found in check_lake(lake, is_deep=is_deep).findings if found.severity == severity})


def the_fault(lake, is_deep=False):
    (found,) = [found for found in check_lake(lake, is_deep=is_deep).findings if found.severity == "fault"]
    return found


@pytest.fixture(scope="module")
def written(tmp_path_factory, three_recordings, make_shard, make_run, day):
    """A sound lake of two shards and a run, not compacted."""
    uri = str(tmp_path_factory.mktemp("written") / "lake")
    commit_shard(uri, three_recordings)
    commit_shard(uri, make_shard(shard_id="s2", uri="/a/four.flac", modified_at=day + timedelta(days=1)))
    append_rows(uri, "runs", [make_run(num_recordings=4)])
    return uri


@pytest.fixture
def lake(written, tmp_path):
    """A copy of it, which a test may change."""
    return str(shutil.copytree(written, tmp_path / "lake"))


@pytest.fixture
def refused_and_found(tmp_path, make_shard, monkeypatch):
    """Function that changes the rows of a shard: how committing them is refused, and what is found where it was not."""
    uri = str(tmp_path / "lake")

    def both(change) -> tuple[str, list]:
        rows = make_shard()
        change(rows)
        with pytest.raises(IntegrityError) as error:
            commit_shard(uri, rows)
        assert not Path(uri).exists()
        monkeypatch.setattr(ledger, "check_shard", lambda *_: None)  # a program with a fault
        commit_transcripts(uri, rows.recipe_id, shard_table(rows))
        return str(error.value), list(check_lake(uri, is_deep=False).findings)

    return both


@pytest.mark.parametrize(
    ("table", "kind", "change", "what"),
    [("recordings", *fault) for fault in RECORDING_FAULTS] + [("segments", *fault) for fault in SEGMENT_FAULTS],
)
def test_rows_that_contradict_each_other_are_refused_and_found(refused_and_found, table, kind, change, what):
    index = {"recordings": 0, "segments": 1}[table]
    refusal, findings = refused_and_found(lambda rows: getattr(rows, table)[index].update(change))
    assert refusal.startswith("shard s1: ")
    assert any(found.kind == kind and what in found.what for found in findings)


def test_doubled_rows_are_refused_and_found(refused_and_found):
    def double(rows):
        rows.recordings.extend(rows.recordings)
        rows.segments.append(rows.segments[0])

    refusal, findings = refused_and_found(double)
    assert "recording_doubled: /a/one.flac: stands 2 times, on 1 dates" in refusal
    assert {"recording_doubled", "segment_doubled"} <= {found.kind for found in findings}


def test_segments_without_a_recording_are_refused_and_found(lake, make_shard):
    rows = make_shard(shard_id="s9", uri="/a/nine.flac")
    data = shard_table(rows)
    with pytest.raises(IntegrityError, match="segments_without_recording"):
        commit_shard(lake, replace(rows, recordings=[]))
    write_deltalake(f"{lake}/transcripts", data.filter(pc.equal(data["row_kind"], "segment")), mode="append")
    assert the_fault(lake).kind == "segments_without_recording"


def test_a_row_with_other_columns_is_refused(tmp_path, make_shard):
    rows = make_shard()
    for changed in ({"surprise": 1}, {}):
        broken = {name: value for name, value in rows.recordings[0].items() if changed or name != "etag"} | changed
        with pytest.raises(IntegrityError, match="missing or unknown columns"):
            commit_shard(str(tmp_path), replace(rows, recordings=[broken]))


def test_times_of_ten_hours_keep_their_samples(tmp_path, make_shard):
    thirds = [("speech", 36_000 / 3 * i, 36_000 / 3 * (i + 1) - 1 / 16_000, "x", 1.0, ()) for i in range(3)]
    edges = [("silence", 36_000 / 3 * (i + 1) - 1 / 16_000, 36_000 / 3 * (i + 1), "", None, ()) for i in range(3)]
    commit_shard(
        str(tmp_path), make_shard(pieces=[piece for pair in zip(thirds, edges, strict=True) for piece in pair])
    )
    assert kinds(str(tmp_path)) == []


def test_a_recording_under_two_dates_is_found(lake, make_shard, day, monkeypatch):
    """Identical bytes, listed again with another date: the format before this one let both rows stand."""
    monkeypatch.setattr(ledger, "held_owners", lambda *_: {})
    moved = make_shard(shard_id="s9", modified_at=day + timedelta(days=1))
    commit_transcripts(lake, "f00d", shard_table(moved))
    assert "recording_doubled" in kinds(lake)
    assert "stands 2 times, on 2 dates" in [found.what for found in check_lake(lake, is_deep=False).findings]


def test_other_dates_ids_and_events_than_rows_should_have_are_found(lake, make_shard, day):
    rows = make_shard(shard_id="s8", uri="/a/eight.flac")
    rows.recordings[0]["etag"] = "v2"
    commit_shard(lake, rows)
    assert kinds(lake) == []
    assert the_fault(lake, is_deep=True).kind == "identity"
    data = shard_table(make_shard(shard_id="s9", uri="/a/nine.flac"))
    later = pa.array([value + timedelta(days=9) for value in data["date"].to_pylist()], pa.date32())
    commit_transcripts(lake, "f00d", data.set_column(data.schema.get_field_index("date"), "date", later))
    append_rows(lake, "presence", presence_rows([("/a", None)], "vanished", noticed_at=day, run_id="r"))
    assert kinds(lake) == ["event", "partition"]


def test_many_faults_of_a_kind_are_counted(lake, make_shard, monkeypatch):
    monkeypatch.setattr(ledger, "check_shard", lambda *_: None)
    rows = make_shard(shard_id="s9", uri="/a/nine.flac")
    rows.segments[:] = [rows.segments[0] | {"segment_index": 2 * n, "confidence": 2.0} for n in range(9)]
    commit_shard(lake, rows)
    found = [found for found in check_lake(lake, is_deep=False).findings if found.kind == "confidence"]
    assert len(found) == 6
    assert any(item.what == "4 more like the 5 that are named" for item in found)


def test_a_run_that_was_killed_and_recordings_that_nobody_finds_are_noted(lake, make_shard):
    commit_shard(lake, make_shard(shard_id="s9", uri="/a/nine.flac", run_id="killed"))
    assert (kinds(lake), kinds(lake, "note")) == ([], ["run_without_row"])
    forget_partition(lake, "recipe_id=f00d/date=2026-01-02")
    (found,) = check_lake(lake, is_deep=False).findings
    assert (found.kind, found.what) == ("rows_lost", "committed 4 recordings, and 1 are there")


FILE_FAULTS = {
    "file_missing": lambda path: path.unlink(),
    "file_size": lambda path: os.truncate(path, 100),
    "file_unreadable": lambda path: path.write_bytes(b"?" * path.stat().st_size),
}


@pytest.mark.parametrize("kind", FILE_FAULTS)
def test_a_damaged_file_is_found_and_comes_with_what_to_do(lake, kind):
    FILE_FAULTS[kind](file_of(lake, date="2026-01-02"))
    found = the_fault(lake)
    assert found.kind == kind
    assert "`dgasr lake forget recipe_id=f00d/date=2026-01-02`" in found.advice


def test_a_file_with_fewer_rows_than_were_committed_is_found(lake):
    path = file_of(lake, date="2026-01-02")
    for log in Path(lake).glob("transcripts/_delta_log/*.json"):
        lines = log.read_text().splitlines()
        changed = [line.replace('numRecords\\":5', 'numRecords\\":6') if path.name in line else line for line in lines]
        log.write_text("\n".join(changed))
    assert the_fault(lake).kind == "file_rows"


def test_rows_that_cannot_be_read_behind_a_sound_footer_are_a_fault(lake):
    path = file_of(lake, date="2026-01-02")
    data = bytearray(path.read_bytes())
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    data[4 : footer - 10] = os.urandom(footer - 14)
    path.write_bytes(data)
    assert the_fault(lake).kind == "rows_unreadable"
    assert the_fault(lake, is_deep=True).kind == "file_unreadable"


def test_damaged_runs_are_found_and_can_be_forgotten(lake):
    (path,) = Path(lake).glob("runs/*/*.parquet")
    path.unlink()
    assert "`dgasr lake forget runs/date=2026-01-02`" in the_fault(lake).advice
    forget_partition(lake, "runs/date=2026-01-02")
    assert kinds(lake) == []


def test_a_sound_lake_has_no_findings_but_what_killed_writers_left(lake):
    path = file_of(lake).with_name("part-00000-of-a-killed-writer.parquet")
    path.write_bytes(b"x")
    found = check_lake(lake, is_deep=True)
    assert found.findings == ()  # somebody may be writing it
    assert (found.num_recordings, found.num_segments, found.num_files) == (4, 8, 5)
    assert found.line() == "the lake is sound: 5 files, 4 recordings, 8 segments checked (all columns read)"
    os.utime(path, (time.time() - 3 * 24 * 3600,) * 2)
    assert kinds(lake, "note") == ["unused"]
