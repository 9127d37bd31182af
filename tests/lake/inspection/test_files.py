"""Damage to files, and what was left over among them, is found, named, and comes with what to do."""

import os
import shutil
import time
from pathlib import Path

import pytest

from dgasr.errors import IntegrityError
from dgasr.lake.commits import claim_key
from dgasr.lake.compaction import CompactionConfig, compact
from dgasr.lake.inspection import check_lake
from dgasr.store import objects
from tests.lake.inspection.finding import kinds, part_of, rewrite, the_fault


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


def test_a_shard_that_vanished_whole_is_missed(lake):
    for path in lake.glob("*/recipe_id=f00d/**/s1.*"):
        path.unlink()
    (found,) = check_lake(str(lake), is_deep=False).findings
    assert (found.kind, found.what) == ("rows_lost", "committed 3 recordings, and 1 are there")
