"""What goes is what nobody can need any more, and nothing else."""

import os
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from dgasr.errors import ConfigError
from dgasr.lake.commits import claim_key, commit_key
from dgasr.lake.compaction import CompactionConfig, compact
from dgasr.lake.garbage import MEANINGS
from dgasr.lake.ledger import committed_recordings
from dgasr.lake.location import open_lake
from dgasr.lake.manifests import read_manifest
from dgasr.lake.parts import commit_shard
from dgasr.lake.snapshot import snapshot
from dgasr.lake.vacuum import VacuumConfig, plan_vacuum, vacuum
from dgasr.store import objects
from tests.lake.reading import keys_of, rows_of

AT_ONCE = VacuumConfig(grace_s=0.0, recipe_grace_s=0.0)
DAYS_S = 24 * 3600


def files_of(lake: str) -> set[str]:
    return {path.relative_to(lake).as_posix() for path in Path(lake).rglob("*") if path.is_file()}


def age(path: Path, days: float = 3.0) -> None:
    """Make a file look as if it had been written days ago."""
    then = time.time() - days * DAYS_S
    os.utime(path, (then, then))


def put(lake: str, key: str, days: float = 3.0) -> str:
    path = Path(lake, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    age(path, days)
    return key


def kinds(found) -> dict[str, list[str]]:
    return {kind: sorted(item.key for item in found.garbage if item.kind == kind) for kind in found.by_kind()}


@pytest.fixture
def lake(tmp_path, make_shard):
    """Three shards of one date."""
    uri = str(tmp_path / "lake")
    for number in range(3):
        commit_shard(objects, uri, make_shard(shard_id=f"s{number}", uri=f"/a/{number}.flac"))
    return uri


def test_a_lake_without_garbage_stays_as_it_is(lake):
    before = files_of(lake)
    assert vacuum(objects, lake, AT_ONCE).garbage == ()
    assert files_of(lake) == before


def test_a_dry_run_changes_nothing(lake):
    compact(objects, lake, CompactionConfig())
    before = files_of(lake)
    assert len(plan_vacuum(lake, AT_ONCE).garbage) == 6 + 1
    assert files_of(lake) == before


def test_merged_parts_go_after_the_grace_period_and_their_rows_stay(lake):
    before = rows_of(lake)
    compact(objects, lake, CompactionConfig())
    assert vacuum(objects, lake, VacuumConfig()).garbage == ()
    found = {kind: len(keys) for kind, keys in kinds(vacuum(objects, lake, AT_ONCE)).items()}
    assert found == {"replaced": 6, "manifest": 1}  # postings are named by a second manifest
    assert rows_of(lake) == before


def test_a_plain_glob_counts_every_row_once_after_it(lake):
    compact(objects, lake, CompactionConfig())
    vacuum(objects, lake, AT_ONCE)
    names = [path.name.partition(".")[0] for path in Path(lake).glob("segments/**/*.parquet")]
    assert names == ["merged"]


def test_commits_stay_so_that_late_writers_add_nothing(lake, make_shard):
    compact(objects, lake, CompactionConfig())
    vacuum(objects, lake, AT_ONCE)
    before = rows_of(lake)
    assert not commit_shard(objects, lake, make_shard(shard_id="s1", uri="/a/1.flac", run_id="run2")).is_mine
    assert rows_of(lake) == before


def test_parts_of_a_manifest_that_somebody_may_still_follow_stay(lake, make_shard):
    compact(objects, lake, CompactionConfig())
    reader = snapshot(open_lake(lake))
    commit_shard(objects, lake, make_shard(shard_id="s9", uri="/a/9.flac"))
    compact(objects, lake, CompactionConfig())
    age(Path(lake, "manifests/00000001.json.gz"))
    vacuum(objects, lake, VacuumConfig())
    assert all(Path(lake, part.key).exists() for parts in reader.parts.values() for part in parts)
    assert not Path(lake, "segments/recipe_id=f00d/date=2026-01-02/s0.parquet").exists()


def test_manifests_that_were_followed_by_others_go(lake, make_shard):
    for number in range(5, 8):
        compact(objects, lake, CompactionConfig())
        commit_shard(objects, lake, make_shard(shard_id=f"s{number}", uri=f"/a/{number}.flac"))
    assert "manifest" in kinds(vacuum(objects, lake, AT_ONCE))
    assert len([key for key in files_of(lake) if key.startswith("manifests/")]) <= 2  # the last, and the fence


def test_a_merged_part_that_no_manifest_names_goes_at_once_behind_a_fence(lake):
    compact(objects, lake, CompactionConfig())
    key = put(lake, "segments/recipe_id=f00d/date=2026-01-02/merged.0123-0000.parquet", days=0)
    number = read_manifest(open_lake(lake)).number
    assert kinds(vacuum(objects, lake, VacuumConfig())) == {"unnamed": [key]}
    assert read_manifest(open_lake(lake)).number == number + 1


def test_a_compaction_that_wrote_its_parts_before_cannot_publish_after(lake):
    """Between its parts and its manifest everything else happens; it begins again, and nothing is missing."""
    before = rows_of(lake)
    others = iter([lambda: vacuum(objects, lake, AT_ONCE)])

    class Slow:
        read_bytes, delete = staticmethod(objects.read_bytes), staticmethod(objects.delete)

        def write_if_absent(self, uri, data):
            if "/manifests/" in uri:
                next(others, lambda: None)()
            return objects.write_if_absent(uri, data)

    done = compact(Slow(), lake, CompactionConfig())
    assert (done.num_conflicts, done.num_merged) == (1, 6)
    assert rows_of(lake) == before


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("segments/recipe_id=f00d/date=2026-01-02/gone.parquet", "orphan"),
        ("segments/recipe_id=f00d/date=2026-01-02/.s7.parquet.0123", "unfinished"),
        ("staging/f00d/s7/00000.arrow", "staged"),
        ("staging/runs/20260101T000000-abc/assignments/00000.json", "staged"),
    ],
)
def test_what_killed_writers_left_goes_after_the_grace_period(lake, key, kind):
    put(lake, key, days=1)
    assert vacuum(objects, lake, VacuumConfig()).garbage == ()
    put(lake, key, days=3)
    assert kinds(plan_vacuum(lake, VacuumConfig())) == {kind: [key]}
    vacuum(objects, lake, VacuumConfig())
    assert key not in files_of(lake)


def test_what_a_run_wrote_long_ago_stays_while_the_run_beats(lake):
    put(lake, "staging/runs/r1/assignments/00000.json", days=30)
    put(lake, "staging/runs/r1/beats/parent.json", days=0)
    assert vacuum(objects, lake, VacuumConfig()).garbage == ()


def test_a_claim_goes_once_its_shard_is_committed_and_not_before(lake):
    put(lake, claim_key("f00d", "s0"))
    begun = put(lake, claim_key("f00d", "s7"))
    put(lake, "segments/recipe_id=f00d/date=2026-01-02/s7.parquet")
    assert kinds(vacuum(objects, lake, VacuumConfig())) == {"claim": [claim_key("f00d", "s0")]}
    assert begun in files_of(lake)


def test_foreign_files_are_nobodys_to_remove(lake):
    keys = {put(lake, "segments/notes.txt"), put(lake, "recordings/recipe_id=f00d/my export.parquet")}
    vacuum(objects, lake, AT_ONCE)
    assert keys <= files_of(lake)


def transcribe_again(lake: str, make_shard, later: timedelta, numbers: range = range(3)) -> None:
    """Commit the same recordings by another recipe, later."""
    for number in numbers:
        rows = make_shard(shard_id=f"t{number}", uri=f"/a/{number}.flac", recipe_id="beef")
        at = rows.recordings[0]["transcribed_at"] + later
        rows.recordings[0]["transcribed_at"] = at
        commit_shard(objects, lake, rows)


def test_a_superseded_recipe_is_hidden_first_and_removed_a_grace_period_later(lake, make_shard):
    transcribe_again(lake, make_shard, timedelta(hours=1))
    compact(objects, lake, CompactionConfig())
    (superseded,) = vacuum(objects, lake, replace(VacuumConfig(), recipe_grace_s=0.0)).superseded
    assert (superseded.recipe_id, superseded.num_recordings) == ("f00d", 3)
    assert all("recipe_id=beef" in key for key in keys_of(lake, "recordings"))
    assert any("recipe_id=f00d" in key for key in files_of(lake))
    with pytest.raises(ConfigError, match="recipe f00d was superseded"):
        committed_recordings(lake, "f00d")
    vacuum(objects, lake, AT_ONCE)
    assert not any("recipe_id=f00d" in key for key in files_of(lake))
    assert read_manifest(open_lake(lake)).dropped == frozenset()


def test_whoever_goes_back_to_a_removed_recipe_finds_room(lake, make_shard):
    transcribe_again(lake, make_shard, timedelta(hours=1))
    for _ in range(2):
        vacuum(objects, lake, AT_ONCE)
    assert committed_recordings(lake, "f00d") == set()
    assert commit_shard(objects, lake, make_shard(shard_id="s0", uri="/a/0.flac", run_id="run2")).is_mine
    assert len(committed_recordings(lake, "f00d")) == 1


@pytest.mark.parametrize(
    ("later", "numbers", "config"),
    [
        (timedelta(hours=1), range(2), AT_ONCE),  # one recording has no other transcript
        (timedelta(hours=-1), range(1), AT_ONCE),  # that one is the older
        (timedelta(hours=1), range(3), replace(AT_ONCE, keep_superseded=True)),
        (timedelta(hours=1), range(3), replace(AT_ONCE, recipe_grace_s=10_000 * DAYS_S)),
    ],
)
def test_a_recipe_that_is_still_needed_stays(lake, make_shard, later, numbers, config):
    transcribe_again(lake, make_shard, later, numbers)
    found = vacuum(objects, lake, config)
    assert "f00d" not in {recipe.recipe_id for recipe in found.superseded}


def test_a_rejection_supersedes_no_transcript(lake, make_shard, three_recordings):
    rows = make_shard(shard_id="x", recipe_id="beef", pieces=[("speech", 0, 1, "one", 1.0, ())])
    rejected = three_recordings.recordings[2] | {
        "recording_id": make_shard(uri="/a/0.flac").recordings[0]["recording_id"],
        "shard_id": "x",
        "transcribed_at": rows.recordings[0]["transcribed_at"] + timedelta(hours=1),
    }
    commit_shard(objects, lake, replace(rows, recordings=[rejected], segments=[]))
    assert "f00d" not in {recipe.recipe_id for recipe in plan_vacuum(lake, AT_ONCE).superseded}


def test_a_vacuum_that_was_killed_is_finished_by_the_next(lake, make_shard):
    transcribe_again(lake, make_shard, timedelta(hours=1))
    compact(objects, lake, CompactionConfig())
    vacuum(objects, lake, AT_ONCE)
    left = iter(range(2))

    class Dying:
        read_bytes, write_if_absent = staticmethod(objects.read_bytes), staticmethod(objects.write_if_absent)

        def delete(self, uri):
            if "clock" not in uri and next(left, None) is None:
                raise KeyboardInterrupt
            objects.delete(uri)

    with pytest.raises(KeyboardInterrupt):
        vacuum(Dying(), lake, AT_ONCE)
    before = rows_of(lake)
    vacuum(objects, lake, AT_ONCE)
    assert rows_of(lake) == before
    assert not any("recipe_id=f00d" in key for key in files_of(lake))


def test_a_lake_on_s3_is_vacuumed_like_a_folder(s3_lake, make_shard):
    for number in range(3):
        commit_shard(objects, s3_lake, make_shard(shard_id=f"s{number}", uri=f"/a/{number}.flac"))
    compact(objects, s3_lake, CompactionConfig())
    before = rows_of(s3_lake)
    assert len(vacuum(objects, s3_lake, AT_ONCE).garbage) == 6 + 1
    assert rows_of(s3_lake) == before
    assert [len(open_lake(s3_lake).list_sizes(folder)) for folder in ("segments", "commits", "staging")] == [1, 3, 0]


def test_every_kind_says_what_it_is(lake):
    compact(objects, lake, CompactionConfig())
    assert set(plan_vacuum(lake, AT_ONCE).by_kind()) <= set(MEANINGS)
    assert plan_vacuum(lake, AT_ONCE).line().startswith("7 files (0.1 MB) would be removed")


def test_commits_of_a_recipe_go_last(lake, make_shard):
    """Parts that nobody committed would lie in the way of whoever comes back to the recipe."""
    transcribe_again(lake, make_shard, timedelta(hours=1))
    vacuum(objects, lake, AT_ONCE)
    gone: list[str] = []

    class Noting:
        read_bytes, write_if_absent = staticmethod(objects.read_bytes), staticmethod(objects.write_if_absent)

        def delete(self, uri):
            gone.append(uri.removeprefix(f"{lake}/"))
            objects.delete(uri)

    vacuum(Noting(), lake, AT_ONCE)
    gone = [key for key in gone if "recipe_id=f00d" in key]
    assert {key.split("/")[0] for key in gone[:6]} == {"recordings", "segments"}
    assert sorted(gone[6:]) == [commit_key("f00d", f"s{number}") for number in range(3)]


def test_durations_are_not_negative():
    with pytest.raises(ConfigError, match="0 s or more"):
        VacuumConfig(grace_s=-1.0)
