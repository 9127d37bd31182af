"""What readers see: manifests, and what was committed since."""

import shutil
from dataclasses import replace

import pytest

from dgasr.errors import IntegrityError
from dgasr.lake.commits import commit_key
from dgasr.lake.location import open_lake
from dgasr.lake.manifests import Manifest, manifest_key, publish_manifest, read_manifest
from dgasr.lake.parts import commit_shard
from dgasr.lake.snapshot import snapshot
from dgasr.store import objects
from tests.lake.reading import keys_of


def publish_commit(lake: str, commit) -> Manifest:
    """Publish a manifest that covers one commit by its own parts."""
    following = read_manifest(open_lake(lake)).next(commit.parts, [commit_key(commit.recipe_id, commit.shard_id)], [])
    assert publish_manifest(objects, lake, following)
    return following


def test_without_a_manifest_commits_say_what_is_visible(small_lake):
    found = snapshot(open_lake(small_lake))
    assert found.manifest.number == 0
    assert [len(found.parts[table]) for table in ("recordings", "segments", "runs", "presence")] == [1, 1, 1, 0]
    assert found.schema_versions == {1}


def test_a_lake_that_is_not_there_yet_shows_nothing(tmp_path):
    assert not any(snapshot(open_lake(str(tmp_path / "later"))).parts.values())


def test_a_covered_commit_is_not_read_again(tmp_path, make_shard):
    lake = str(tmp_path)
    commit = commit_shard(objects, lake, make_shard()).commit
    publish_commit(lake, commit)
    (tmp_path / commit_key("f00d", "s1")).write_text("no JSON at all")
    assert keys_of(lake, "recordings") == ["recordings/recipe_id=f00d/date=2026-01-02/s1.parquet"]


def test_what_was_committed_after_the_manifest_is_visible(tmp_path, make_shard):
    lake = str(tmp_path)
    publish_commit(lake, commit_shard(objects, lake, make_shard()).commit)
    commit_shard(objects, lake, make_shard(shard_id="s2", uri="/a/two"))
    assert len(keys_of(lake, "segments")) == 2


def test_the_highest_manifest_counts(tmp_path, make_shard):
    lake = str(tmp_path)
    first = publish_commit(lake, commit_shard(objects, lake, make_shard()).commit)
    publish_manifest(objects, lake, first.next([], first.covers, []))
    assert keys_of(lake, "recordings") == []


def test_a_number_is_published_once_and_its_owner_knows_it_again(tmp_path):
    mine, other = Manifest(number=1), Manifest(number=1)
    assert [publish_manifest(objects, str(tmp_path), m) for m in (mine, other, mine)] == [True, False, True]
    assert read_manifest(open_lake(str(tmp_path))) == mine


def test_rows_of_a_dropped_recipe_are_not_seen(tmp_path, make_shard):
    lake = str(tmp_path)
    commit_shard(objects, lake, make_shard())
    commit_shard(objects, lake, make_shard(recipe_id="beef"))
    publish_manifest(objects, lake, Manifest().next([], [], ["beef"]))
    assert keys_of(lake, "recordings") == ["recordings/recipe_id=f00d/date=2026-01-02/s1.parquet"]


def test_one_recipe_can_be_asked_for(tmp_path, make_shard):
    lake = str(tmp_path)
    publish_commit(lake, commit_shard(objects, lake, make_shard()).commit)
    commit_shard(objects, lake, make_shard(recipe_id="beef"))
    found = snapshot(open_lake(lake), ("recordings",), "beef")
    assert [part.key for part in found.parts["recordings"]] == ["recordings/recipe_id=beef/date=2026-01-02/s1.parquet"]


def test_files_that_are_only_being_written_are_not_seen(small_lake, tmp_path):
    shutil.copytree(small_lake, tmp_path / "lake")
    folder = tmp_path / "lake" / "runs" / "date=2026-01-02"
    (folder / ".run2.parquet.0123").write_bytes(b"half a fi")
    (folder / "notes.txt").write_text("?")
    assert keys_of(str(tmp_path / "lake"), "runs") == ["runs/date=2026-01-02/run1.parquet"]


def test_a_shard_that_is_committed_between_two_listings_is_no_contradiction(tmp_path, make_shard):
    lake = open_lake(str(tmp_path))
    commit_shard(objects, lake.uri, make_shard())

    class Late(type(lake)):
        """A lake whose first listing of a table was taken before anything lay in it."""

        def list_sizes(self, folder):
            is_late = folder == "segments" and folder not in seen
            seen.append(folder)
            return {} if is_late else lake.list_sizes(folder)

    seen: list[str] = []
    found = snapshot(Late(uri=lake.uri, filesystem=lake.filesystem, root=lake.root))
    assert len(found.parts["segments"]) == 1


@pytest.mark.parametrize("data", [b"", b"{}", b"\x1f\x8b half"])
def test_a_broken_manifest_is_named(small_lake, tmp_path, data):
    shutil.copytree(small_lake, tmp_path / "lake")
    path = tmp_path / "lake" / manifest_key(1)
    path.parent.mkdir()
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"00000001\.json\.gz: is no manifest of a lake"):
        snapshot(open_lake(str(tmp_path / "lake")))


def test_a_manifest_of_a_newer_version_is_refused(tmp_path):
    publish_manifest(objects, str(tmp_path), replace(Manifest(number=1), schema_version=2))
    with pytest.raises(IntegrityError, match=r"schema version 2, and this dgasr reads up to 1. Upgrade dgasr"):
        snapshot(open_lake(str(tmp_path)))


def test_a_manifest_survives_its_bytes(tmp_path, make_shard):
    commit = commit_shard(objects, str(tmp_path), make_shard()).commit
    manifest = Manifest().next(commit.parts, ["commits/x.json"], ["beef"])
    publish_manifest(objects, str(tmp_path), manifest)
    assert read_manifest(open_lake(str(tmp_path))) == manifest
