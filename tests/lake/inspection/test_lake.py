"""Every fault that can be planted is found, named, and comes with what to do."""

import hashlib
import json
import os
import shutil
import time
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dgasr.errors import ConfigError, IntegrityError
from dgasr.lake import parts
from dgasr.lake.commits import claim_key
from dgasr.lake.compaction import CompactionConfig, compact
from dgasr.lake.inspection import check_lake
from dgasr.lake.inspection.invariants import INVARIANTS
from dgasr.lake.manifests import Manifest, publish_manifest
from dgasr.lake.parts import commit_shard, write_presence
from dgasr.lake.rows import presence_rows
from dgasr.store import objects

FIXTURE = Path(__file__).parents[1] / "fixtures" / "lake-2026-11-21"


@pytest.fixture
def lake(tmp_path):
    """A sound lake of two shards and a run, not merged."""
    shutil.copytree(FIXTURE, tmp_path / "lake")
    return tmp_path / "lake"


def kinds(lake, severity="fault", is_deep=False):
    return sorted(
        {found.kind for found in check_lake(str(lake), is_deep=is_deep).findings if found.severity == severity}
    )


def the_fault(lake, is_deep=False):
    (found,) = [found for found in check_lake(str(lake), is_deep=is_deep).findings if found.severity == "fault"]
    return found


def part_of(lake: Path, table: str, shard_id: str = "s1") -> Path:
    return next(lake.glob(f"{table}/*/*/{shard_id}.parquet"))


def rewrite(path: Path, change) -> None:
    """Change a part's table and let its commit believe that it always was so."""
    changed = change(pq.ParquetFile(path).read())
    pq.write_table(changed, path, compression="zstd")
    commit_path = path.parents[3] / "commits" / "recipe_id=f00d" / f"{path.stem}.json"
    commit = json.loads(commit_path.read_text())
    for part in commit["parts"]:
        if part["key"].startswith(path.relative_to(path.parents[3]).parts[0]):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            part |= {"size_bytes": path.stat().st_size, "num_rows": changed.num_rows, "sha256": digest}
    commit_path.write_text(json.dumps(commit))


def test_a_sound_lake_has_no_faults_and_says_what_was_looked_at(lake):
    found = check_lake(str(lake), is_deep=True)
    assert found.findings == ()
    assert (found.num_recordings, found.num_segments, found.num_files) == (4, 7, 7)
    assert found.line() == "the lake is sound: 7 files, 4 recordings, 7 segments checked (bytes too)"


def test_a_merged_lake_is_as_sound(lake, make_shard):
    for number in range(2):
        commit_shard(objects, str(lake), make_shard(shard_id=f"m{number}", uri=f"/m/{number}"))
    compact(objects, str(lake), CompactionConfig())
    assert kinds(lake, is_deep=True) == []


def test_an_empty_lake_is_sound(tmp_path):
    assert check_lake(str(tmp_path), is_deep=False).line().startswith("the lake is sound: 0 files")


def test_a_lake_on_s3_is_checked_like_a_folder(s3_lake, three_recordings):
    commit_shard(objects, s3_lake, three_recordings)
    assert kinds(s3_lake, is_deep=True) == []


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[40] ^= 0xFF
    path.write_bytes(data)


FILE_FAULTS = {
    "part_missing": lambda lake: part_of(lake, "segments").unlink(),
    "part_size": lambda lake: os.truncate(part_of(lake, "segments"), 100),
    "part_unreadable": lambda lake: part_of(lake, "segments").write_bytes(
        b"?" * part_of(lake, "segments").stat().st_size
    ),
    "commit": lambda lake: (lake / "commits/recipe_id=f00d/s1.json").write_text("{}"),
    "part_version": lambda lake: rewrite(
        part_of(lake, "segments"), lambda t: t.replace_schema_metadata({"dgasr.schema_version": "2"})
    ),
    "part_schema": lambda lake: rewrite(part_of(lake, "segments"), lambda t: t.drop(["kind"])),
}


@pytest.mark.parametrize("kind", FILE_FAULTS)
def test_a_damaged_file_is_found_and_comes_with_what_to_do(lake, kind):
    FILE_FAULTS[kind](lake)
    found = the_fault(lake)
    assert found.kind == kind
    assert any(word in found.advice for word in ("Restore", "restore", "Upgrade"))


def test_advice_names_the_partition(lake):
    part_of(lake, "segments").unlink()
    assert "`dgasr lake forget recipe_id=f00d/date=2026-01-02`" in the_fault(lake).advice


def test_changed_bytes_are_found_where_bytes_are_compared(lake):
    flip_a_byte(part_of(lake, "recordings"))
    assert the_fault(lake, is_deep=True).kind == "part_digest"


def test_rows_fewer_than_committed_are_found(lake):
    path = lake / "commits/recipe_id=f00d/s1.json"
    path.write_text(path.read_text().replace('"num_rows": 5', '"num_rows": 6'))
    assert the_fault(lake).kind == "part_rows"


def test_a_part_of_another_table_is_found(lake):
    shutil.copy(part_of(lake, "recordings"), part_of(lake, "segments"))
    rewrite(part_of(lake, "segments"), lambda table: table)
    assert the_fault(lake).what == "is no part of segments"


def test_a_commit_under_anothers_name_is_found(lake):
    shutil.copy(lake / "commits/recipe_id=f00d/s1.json", lake / "commits/recipe_id=f00d/s7.json")
    assert the_fault(lake).what == "speaks of shard s1 of recipe f00d, whose commit lies elsewhere"


def test_a_part_that_lies_under_no_partition_is_found(lake):
    path = next(lake.glob("runs/*/run1.parquet"))
    path.rename(lake / "runs" / "run1.parquet")
    assert the_fault(lake).kind == "part_place"


def test_a_broken_manifest_stops_everything(lake):
    (lake / "manifests").mkdir()
    (lake / "manifests" / "00000001.json.gz").write_bytes(b"?")
    with pytest.raises(IntegrityError, match="is no manifest of a lake"):
        check_lake(str(lake), is_deep=False)


RECORDING_FAULTS = {
    "num_segments": {"num_segments": 2},
    "num_words": {"num_words": 9},
    "speech_and_dropped": {"speech_s": 8.5},
    "cover": {"decoded_s": 10.5, "dropped_s": 2.5},
    "status": {"reason": "truncated"},
    "value": {"reason": "bad luck", "status": "partial"},
    "identity": {"etag": "v2"},
}

SEGMENT_FAULTS = {
    "cover": {"start_s": 6.5},
    "segment_index": {"segment_index": 5},
    "value": {"kind": "music"},
    "confidence": {"confidence": 1.5},
    "words": {"words": [{"word": "x", "start_s": 5.9, "end_s": 6.5, "confidence": 1.0}]},
    "segments_without_recording": {"recording_id": "f" * 32},
}

WORDS_FAULTS = {
    "end before their start": [(7.0, 6.5)],
    "overlap": [(6.0, 7.0), (6.9, 7.5)],
    "leave their segment": [(6.0, 6.5), (7.0, 8.5)],
    "are out of order": [(7.0, 7.5), (6.1, 6.5), (7.6, 7.7)],
}


@pytest.fixture
def plant(tmp_path, make_shard, monkeypatch):
    """Commit a shard whose rows were changed, as a program with a fault would."""
    monkeypatch.setattr(parts, "check_shard", lambda rows: None)

    def commit(change) -> Path:
        rows = make_shard()
        change(rows)
        commit_shard(objects, str(tmp_path / "lake"), rows)
        return tmp_path / "lake"

    return commit


@pytest.mark.parametrize("kind", RECORDING_FAULTS)
def test_a_recording_that_contradicts_itself_is_found(plant, kind):
    lake = plant(lambda rows: rows.recordings[0].update(RECORDING_FAULTS[kind]))
    assert kind in kinds(lake, is_deep=kind == "identity")


@pytest.mark.parametrize("kind", SEGMENT_FAULTS)
def test_a_segment_that_contradicts_the_others_is_found(plant, kind):
    lake = plant(lambda rows: rows.segments[1].update(SEGMENT_FAULTS[kind]))
    assert kind in kinds(lake)


@pytest.mark.parametrize("how", WORDS_FAULTS)
def test_words_that_are_not_in_order_are_found(plant, how):
    words = [{"word": "x", "start_s": start, "end_s": end, "confidence": 1.0} for start, end in WORDS_FAULTS[how]]
    lake = plant(lambda rows: rows.segments[1].update(words=words))
    assert "words" in kinds(lake)


def test_doubled_rows_are_found(plant):
    def double(rows):
        rows.recordings.extend(rows.recordings)
        rows.segments.append(rows.segments[0])

    assert {"recording_doubled", "segment_doubled"} <= set(kinds(plant(double)))


def test_a_recording_under_another_date_is_found(lake):
    def shift(table):
        column = pa.array(
            [value + timedelta(days=9) for value in table["modified_at"].to_pylist()], table["modified_at"].type
        )
        return table.set_column(table.schema.names.index("modified_at"), table.schema.field("modified_at"), column)

    rewrite(part_of(lake, "recordings"), shift)
    assert kinds(lake) == ["partition"]


def test_a_shard_with_other_members_than_committed_is_found(lake):
    rewrite(part_of(lake, "recordings"), lambda table: table.filter(pa.array([True, True, False])))
    assert "shard_members" in kinds(lake, is_deep=True)


def test_an_unknown_event_is_found(lake, day):
    rows = presence_rows([("/a", None)], "vanished", noticed_at=day, run_id="r")
    write_presence(objects, str(lake), rows)
    assert kinds(lake) == ["event"]


def test_many_faults_of_a_kind_are_counted(plant):
    def shift(rows):
        rows.segments[:] = [rows.segments[0] | {"segment_index": 2 * n, "confidence": 2.0} for n in range(9)]

    found = [f for f in check_lake(str(plant(shift)), is_deep=False).findings if f.kind == "confidence"]
    assert len(found) == 6
    assert any(f.what == "4 more like the 5 that are named" for f in found)


NOTES = {
    "foreign_file": "segments/recipe_id=f00d/date=2026-01-02/my export.csv",
    "orphan": "segments/recipe_id=f00d/date=2026-01-02/s7.parquet",
    "unnamed": "segments/recipe_id=f00d/date=2026-01-02/merged.0-0.parquet",
    "claim_open": claim_key("f00d", "s7"),
    "claim": claim_key("f00d", "s1"),
    "staged": "staging/f00d/s7/outcomes.json",
    "unfinished": "recordings/.s7.parquet.0123",
}


@pytest.mark.parametrize("kind", NOTES)
def test_what_is_left_over_is_worth_a_note_and_no_fault(lake, kind):
    path = lake / NOTES[kind]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    os.utime(path, (time.time() - 3 * 24 * 3600,) * 2)
    found = check_lake(str(lake), is_deep=True)
    assert found.num_faults == 0
    assert [f.kind for f in found.findings] == [kind]


def test_a_run_that_was_killed_and_a_recording_that_two_plans_took_are_noted(lake, make_shard):
    commit_shard(objects, str(lake), make_shard(shard_id="s9", run_id="killed"))
    assert kinds(lake) == []
    assert kinds(lake, "note") == ["recording_in_several_shards", "run_without_row"]


def test_a_shard_that_vanished_whole_is_missed(lake):
    for path in lake.glob("*/recipe_id=f00d/**/s1.*"):
        path.unlink()
    (found,) = check_lake(str(lake), is_deep=False).findings
    assert (found.kind, found.what) == ("rows_lost", "committed 3 recordings, and 1 are there")


def test_a_commit_that_vanished_after_the_merge_is_noted(lake):
    compact(objects, str(lake), CompactionConfig())
    (lake / "commits/recipe_id=f00d/s1.json").unlink()
    assert kinds(lake, "note") == ["commit_gone"]


def test_rows_that_cannot_be_read_behind_a_sound_footer_are_a_fault(lake):
    path = part_of(lake, "segments")
    data = bytearray(path.read_bytes())
    data[4:2000] = os.urandom(1996)
    path.write_bytes(data)
    assert the_fault(lake).kind == "rows_unreadable"
    assert the_fault(lake, is_deep=True).kind == "part_digest"


def test_every_line_says_what_where_and_what_now(lake):
    part_of(lake, "segments").unlink()
    line = the_fault(lake).line()
    assert line.startswith(f"fault part_missing: {lake}/segments/recipe_id=f00d/date=2026-01-02/s1.parquet: is named")
    assert line.endswith("fills it anew.")


def test_every_rule_has_a_name_of_its_own_and_advice():
    assert len({rule.kind for rule in INVARIANTS}) == len(INVARIANTS) == 17
    assert all(rule.advice for rule in INVARIANTS)


def test_where_no_lake_lies_nothing_is_checked(tmp_path):
    with pytest.raises(ConfigError, match="no lake lies here"):
        check_lake(str(tmp_path / "nowhere"), is_deep=False)


def test_rows_of_a_dropped_recipe_are_not_judged(lake):
    publish_manifest(objects, str(lake), Manifest().next([], [], ["f00d"]))
    part_of(lake, "segments").unlink()
    assert kinds(lake) == []
