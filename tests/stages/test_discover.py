import os
from pathlib import Path

import boto3
import pytest

from dgasr.errors import ConfigError, TransientError
from dgasr.lake.ledger import absent_uris
from dgasr.lake.views import connect
from dgasr.recipe import Recipe
from dgasr.records import MISSING_ETAG
from dgasr.stages.discover import Listing, read_uri_list
from dgasr.stages.embedded import transcribe_sources
from dgasr.stages.heartbeat import Progress
from dgasr.stages.selection import Selection, find_backlog, list_selected
from tests.stages.conftest import engine_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("in/a.wav", "in/deep/b.wav", "in/b.wav", "other/c.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"audio")
    return tmp_path


@pytest.fixture(scope="module")
def bucket(s3_endpoint: str) -> str:
    client = boto3.client("s3")
    client.create_bucket(Bucket="discovery")
    for key in ("in/a.wav", "in/a.wav.txt", "in/b.wav", "index.wav"):
        client.put_object(Bucket="discovery", Key=key, Body=b"audio")
    return "s3://discovery"


def uris(listing: Listing) -> list[str]:
    return [recording.uri for recording in listing]


def test_a_recording_at_two_sources_comes_once(folder: Path):
    found = uris(Listing([f"{folder}/in", f"{folder}/in/a.wav"], [f"{folder}/in/b.wav", f"{folder}/in/b.wav"]))
    assert found == [f"{folder}/in/a.wav", f"{folder}/in/b.wav", f"{folder}/in/deep/b.wav"]


@pytest.mark.parametrize(
    ("source", "covered", "others"),
    [
        ("in", ["in/gone.wav", "in/deep/gone.wav"], ["in.wav", "other/c.wav"]),  # a folder
        ("in/a.wav", ["in/a.wav"], ["in/a.wav.txt"]),  # a file that is there
        ("in/gone.wav", ["in/gone.wav"], ["in/gone.wav.txt"]),  # and one that is not
    ],
)
def test_a_listing_of_a_folder_speaks_for_what_it_would_have_found(folder, source, covered, others):
    listing = Listing([f"{folder}/{source}"])
    uris(listing)
    assert [name for name in (*covered, *others) if listing.scope.covers(f"{folder}/{name}")] == covered


def test_a_folder_speaks_for_files_whose_names_are_no_text(folder):
    (folder / os.fsdecode(b"in/\xff.wav")).touch()
    listing = Listing([f"{folder}/in"])
    assert all(listing.scope.covers(uri) for uri in uris(listing))


@pytest.mark.parametrize(
    ("source", "found", "covered", "other"),
    [
        ("/in", ["/in/a.wav", "/in/a.wav.txt", "/in/b.wav", "/index.wav"], "/in/gone.wav", "/out/gone.wav"),
        ("/old/", [], "/old/gone.wav", "/older/gone.wav"),  # nothing is left there
        ("", ["/in/a.wav", "/in/a.wav.txt", "/in/b.wav", "/index.wav"], "/x.wav", "-2/in/a.wav"),  # a whole bucket
    ],
)
def test_a_listing_of_s3_speaks_for_all_that_begins_with_its_prefix(bucket, source, found, covered, other):
    listing = Listing([f"{bucket}{source}"])
    assert uris(listing) == [f"{bucket}{key}" for key in found]
    assert listing.scope.covers(f"{bucket}{covered}")
    assert not listing.scope.covers(f"{bucket}{other}")


@pytest.mark.parametrize("key", ["in/a.wav", "in/gone.wav", "in"])
def test_an_object_of_a_list_is_that_object_and_none_whose_name_begins_alike(bucket: str, key: str):
    (found,) = Listing([], [f"{bucket}/{key}"])
    assert (found.uri, found.etag == MISSING_ETAG) == (f"{bucket}/{key}", key != "in/a.wav")


def test_a_list_has_a_uri_on_each_line(folder: Path):
    text = f"\ufeff{folder}/in/b.wav\r\n\r\n{folder}/other/c.wav"
    (folder / "list.txt").write_text(text, encoding="utf-8", newline="")
    assert read_uri_list(f"{folder}/list.txt") == (f"{folder}/in/b.wav", f"{folder}/other/c.wav")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\n\n", "names no recording"), (b"\xff\xfe\x00", "is no list of URIs"), (None, "is no list of URIs")],
)
def test_a_list_that_names_nothing_is_refused(tmp_path: Path, content: bytes | None, message: str):
    if content is not None:
        (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        list_selected(Selection(uri_list=f"{tmp_path}/list.txt"))


def test_a_lake_among_the_recordings_is_none_of_them(tmp_path):
    for name in (
        "a.wav",
        "runs/b.wav",
        "runs/date=2026-01-02/part-0.parquet",
        "transcripts/_delta_log/00000000000000000000.json",
        "staging/f00d/s1/outcomes.json",
        "c.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = uris(Listing([str(tmp_path)], lake_uri=str(tmp_path)))
    assert found == [f"{tmp_path}/{name}" for name in ("a.wav", "c.json", "runs/b.wav")]
    assert len(uris(Listing([str(tmp_path)], lake_uri=f"{tmp_path}/rec"))) == 6


@pytest.fixture
def transcribe(archive: Path, recipe: Recipe, transcriber):
    """Function that transcribes sources of the archive, all of it if none are named, and returns what is absent."""

    def run(*names: str) -> list[str]:
        lake = f"{archive.parent}/lake"
        sources = [f"{archive}/{name}" for name in names] or [str(archive)]
        transcribe_sources(sources, lake, recipe, engine_of(recipe, transcriber), Progress())
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
    transcribe_sources(["s3://presence/in/"], lake, recipe, engine_of(recipe, transcriber), Progress())
    client.delete_object(Bucket="presence", Key="in/b.wav")
    backlog = find_backlog(Selection(sources=("s3://presence/in/",)), lake, "another")
    assert [recording.uri.rpartition("/")[2] for recording in backlog] == ["a.flac", "cut.wav", "text.mp3"]
    assert backlog.note_presence("run") == (1, 0)
    assert absent_uris(lake) == {"s3://presence/in/b.wav"}
