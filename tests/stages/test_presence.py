import os
from pathlib import Path

import boto3
import pytest

from dgasr.errors import TransientError
from dgasr.lake.ledger import absent_uris
from dgasr.lake.views import connect
from dgasr.recipe import Recipe
from dgasr.stages.backlog import find_backlog
from dgasr.stages.embedded import transcribe_sources
from dgasr.stages.selection import Selection
from tests.stages.test_embedded import Watcher


@pytest.fixture
def transcribe(archive: Path, recipe: Recipe, transcriber):
    """Function that transcribes sources of the archive, all of it if none are named, and returns what is absent."""

    def run(*names: str) -> list[str]:
        lake = f"{archive.parent}/lake"
        sources = [f"{archive}/{name}" for name in names] or [str(archive)]
        transcribe_sources(sources, lake, recipe, transcriber, "cpu", Watcher())
        return sorted(uri.removeprefix(f"{archive}/") for uri in absent_uris(lake))

    return run


def events(archive: Path) -> list[tuple]:
    with connect(f"{archive.parent}/lake") as connection:
        query = "select split_part(uri, '/', -1), event, recording_id is null from presence order by noticed_at, uri"
        return connection.execute(query).fetchall()


def test_an_object_that_is_gone_is_marked_once_and_its_rows_stay(archive: Path, transcribe):
    transcribe()
    (archive / "b.wav").unlink()
    assert transcribe() == ["b.wav"]
    assert transcribe() == ["b.wav"]
    assert events(archive) == [("b.wav", "deleted", True)]
    with connect(f"{archive.parent}/lake") as connection:
        assert connection.execute("select count(*)::int from recordings").fetchall() == [(4,)]


def test_an_object_that_is_back_is_marked_with_the_version_that_lies_there(archive: Path, transcribe):
    transcribe()
    content = (archive / "b.wav").read_bytes()
    (archive / "b.wav").unlink()
    transcribe()
    (archive / "b.wav").write_bytes(content)
    assert transcribe() == []
    assert events(archive) == [("b.wav", "deleted", True), ("b.wav", "returned", False)]


def test_a_part_of_the_archive_says_nothing_of_the_rest(archive: Path, transcribe):
    (archive / "deep").mkdir()
    (archive / "a.flac").rename(archive / "deep" / "a.flac")
    transcribe()
    (archive / "deep" / "a.flac").unlink()
    (archive / "b.wav").unlink()
    assert transcribe("deep") == ["deep/a.flac"]


def test_a_file_asked_for_by_name_that_is_missing_says_nothing_of_others(archive: Path, transcribe):
    transcribe()
    (archive / "b.wav").unlink()
    (archive / "a.flac").unlink()
    assert transcribe("b.wav", "gone.wav") == ["b.wav"]


def test_what_was_asked_for_by_name_and_never_there_is_not_gone(archive: Path, transcribe):
    transcribe("never.wav")
    assert transcribe("never.wav") == []


def test_a_listing_that_fails_half_way_marks_nothing(archive: Path, recipe: Recipe, transcribe, monkeypatch):
    transcribe()
    (archive / "text.mp3").unlink()

    def fail(sources):
        yield from ()
        raise TransientError("the store does not answer")

    monkeypatch.setattr("dgasr.stages.discover.list_objects", fail)
    with pytest.raises(TransientError):
        transcribe()
    assert events(archive) == []


def test_a_listing_that_was_broken_off_marks_nothing(archive: Path, recipe: Recipe, transcribe):
    transcribe()
    (archive / "text.mp3").unlink()
    backlog = find_backlog(Selection(sources=(str(archive),)), f"{archive.parent}/lake", "another")
    next(iter(backlog))
    assert backlog.note_presence("run") == (0, 0)


def test_what_another_run_commits_during_the_listing_is_not_taken_for_gone(
    archive: Path, transcribe, recipe: Recipe, transcriber
):
    lake = f"{archive.parent}/lake"
    transcribe("b.wav")
    backlog = find_backlog(Selection(sources=(str(archive),)), lake, recipe.recipe_id)
    listed = iter(backlog)
    first = next(listed)
    # Sorts before what was listed last: this listing will not come across it.
    (archive / "a.aac").write_bytes(b"new")
    transcribe("a.aac")
    assert (first.uri.endswith("a.flac"), len(list(listed)), backlog.note_presence("run")) == (True, 2, (0, 0))


def test_files_of_a_folder_that_may_not_be_read_are_not_taken_for_gone(archive: Path, transcribe, monkeypatch):
    (archive / "deep").mkdir()
    (archive / "a.flac").rename(archive / "deep" / "a.flac")
    transcribe()
    scan = os.scandir

    def refuse(path):  # as a mode of 000 would, but for root too
        if str(path).endswith("/deep"):
            raise PermissionError(path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert transcribe() == []


def test_objects_of_s3_are_marked_and_a_deletion_under_another_recipe_is_noticed_too(
    s3_endpoint: str, archive: Path, recipe: Recipe, transcriber
):
    client, lake = boto3.client("s3"), "s3://presence/lake"
    client.create_bucket(Bucket="presence")
    for path in archive.iterdir():
        client.upload_file(str(path), "presence", f"in/{path.name}")
    transcribe_sources(["s3://presence/in/"], lake, recipe, transcriber, "cpu", Watcher())
    client.delete_object(Bucket="presence", Key="in/b.wav")
    backlog = find_backlog(Selection(sources=("s3://presence/in/",)), lake, "another")
    assert [recording.uri.rpartition("/")[2] for recording in backlog] == ["a.flac", "cut.wav", "text.mp3"]
    assert backlog.note_presence("run") == (1, 0)
    assert absent_uris(lake) == {"s3://presence/in/b.wav"}
