import os
from pathlib import Path

import boto3
import pytest

from dgasr.errors import ConfigError, TransientError
from dgasr.lake.ledger import absent_uris
from dgasr.records import MISSING_ETAG
from dgasr.stages.discover import Listing, read_uri_list
from dgasr.stages.selection import Selection, list_selected
from tests.stages.conftest import Place


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


def absent(place: Place, *names: str) -> list[str]:
    """Transcribe the archive, or some of it; what is absent then."""
    place.transcribe(*names)
    return sorted(uri.removeprefix(f"{place.archive}/") for uri in absent_uris(place.lake))


def events(place: Place) -> list[tuple]:
    return place.ask(
        "select split_part(uri, '/', -1), event, recording_id is null from presence order by noticed_at, uri"
    )


def test_an_object_that_is_gone_is_marked_once_and_its_rows_stay(place: Place):
    """And one that is back, with the version that lies there."""
    place.transcribe()
    content = (place.archive / "b.wav").read_bytes()
    (place.archive / "b.wav").unlink()
    assert [absent(place) for _ in range(2)] == [["b.wav"]] * 2
    assert events(place) == [("b.wav", "deleted", True)]
    assert place.ask("select count(*)::int from recordings") == [(4,)]
    (place.archive / "b.wav").write_bytes(content)
    assert absent(place) == []
    assert events(place) == [("b.wav", "deleted", True), ("b.wav", "returned", False)]


def test_a_part_of_the_archive_says_nothing_of_the_rest_and_nothing_of_what_never_was(place: Place):
    (place.archive / "deep").mkdir()
    for name in ("a.flac", "text.mp3"):
        (place.archive / name).rename(place.archive / "deep" / name)
    place.transcribe()
    (place.archive / "deep" / "a.flac").unlink()
    (place.archive / "b.wav").unlink()
    assert absent(place, "never.wav") == absent(place, "never.wav") == []
    assert absent(place, "deep") == ["deep/a.flac"]
    (place.archive / "deep" / "text.mp3").unlink()
    with pytest.raises(ConfigError, match="nothing lies there"):  # a wrong prefix looks the same
        place.transcribe("deep")
    assert absent_uris(place.lake) == {f"{place.archive}/deep/a.flac"}


def test_a_listing_that_fails_half_way_marks_nothing(place: Place, monkeypatch: pytest.MonkeyPatch):
    place.transcribe()
    (place.archive / "text.mp3").unlink()
    backlog = place.backlog(recipe_id="another")
    next(iter(backlog))  # and one that was broken off neither
    assert backlog.note_presence("run") == (0, 0)

    def fail(sources):
        yield from ()
        raise TransientError("the store does not answer")

    monkeypatch.setattr("dgasr.stages.discover.list_objects", fail)
    with pytest.raises(TransientError):
        place.transcribe()
    assert events(place) == []


def test_what_another_run_commits_during_the_listing_is_not_taken_for_gone(place: Place):
    place.transcribe("b.wav")
    backlog = place.backlog()
    listed = iter(backlog)
    first = next(listed)
    # Sorts before what was listed last: this listing will not come across it.
    (place.archive / "a.aac").write_bytes(b"new")
    place.transcribe("a.aac")
    assert (first.uri.endswith("a.flac"), len(list(listed)), backlog.note_presence("run")) == (True, 2, (0, 0))


def test_files_of_a_folder_that_may_not_be_read_are_not_taken_for_gone(place: Place, monkeypatch):
    (place.archive / "deep").mkdir()
    (place.archive / "a.flac").rename(place.archive / "deep" / "a.flac")
    place.transcribe()
    scan = os.scandir

    def refuse(path):  # as a mode of 000 would, but for root too
        if str(path).endswith("/deep"):
            raise PermissionError(path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert absent(place) == []


def test_objects_of_s3_are_marked_and_a_deletion_under_another_recipe_is_noticed_too(s3_endpoint: str, place: Place):
    client, source = boto3.client("s3"), ("s3://presence/in/",)
    client.create_bucket(Bucket="presence")
    for path in place.archive.iterdir():
        client.upload_file(str(path), "presence", f"in/{path.name}")
    place.lake = "s3://presence/lake"
    place.transcribe(sources=source)
    client.delete_object(Bucket="presence", Key="in/b.wav")
    backlog = place.backlog(recipe_id="another", sources=source)
    assert [recording.uri.rpartition("/")[2] for recording in backlog] == ["a.flac", "cut.wav", "text.mp3"]
    assert backlog.note_presence("run") == (1, 0)
    assert absent_uris(place.lake) == {"s3://presence/in/b.wav"}
