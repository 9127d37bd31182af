import os
from pathlib import Path

import boto3
import pytest

from dgasr.errors import ConfigError
from dgasr.stages.discover import Listing, list_selected, read_uri_list
from dgasr.stages.selection import Selection
from dgasr.store.locations import MISSING_ETAG


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


def test_a_listing_that_came_to_its_end_is_complete(folder: Path):
    listing = Listing([f"{folder}/in"])
    uris(listing)
    assert listing.is_complete


def test_a_listing_that_was_broken_off_is_not_complete(folder: Path):
    listing = Listing([f"{folder}/in"])
    next(iter(listing))
    assert not listing.is_complete


def test_a_folder_speaks_for_what_is_in_it_and_for_nothing_beside_it(folder: Path):
    listing = Listing([f"{folder}/in"])
    uris(listing)
    names = ("in/gone.wav", "in/deep/gone.wav", "in.wav", "other/c.wav")
    assert [listing.scope.covers(f"{folder}/{name}") for name in names] == [True, True, False, False]


def test_a_folder_speaks_for_files_whose_names_are_no_text(folder: Path):
    (folder / os.fsdecode(b"in/\xff.wav")).touch()
    listing = Listing([f"{folder}/in"])
    assert all(listing.scope.covers(uri) for uri in uris(listing))


@pytest.mark.parametrize("name", ["in/a.wav", "in/gone.wav"])
def test_a_file_asked_for_by_name_speaks_for_itself_alone(folder: Path, name: str):
    listing = Listing([f"{folder}/{name}"])
    uris(listing)
    assert listing.scope.covers(f"{folder}/{name}")
    assert not listing.scope.covers(f"{folder}/{name}.txt")


def test_a_prefix_speaks_for_all_that_begins_with_it(bucket: str):
    listing = Listing([f"{bucket}/in"])
    assert uris(listing) == [f"{bucket}/{key}" for key in ("in/a.wav", "in/a.wav.txt", "in/b.wav", "index.wav")]
    assert listing.scope.covers(f"{bucket}/in/gone.wav")
    assert not listing.scope.covers(f"{bucket}/out/gone.wav")


def test_a_prefix_under_which_nothing_is_left_speaks_for_it_still(bucket: str):
    listing = Listing([f"{bucket}/old/"])
    assert uris(listing) == []
    assert listing.scope.covers(f"{bucket}/old/gone.wav")


def test_a_whole_bucket_speaks_for_no_other_whose_name_begins_alike(bucket: str):
    listing = Listing([bucket])
    uris(listing)
    assert not listing.scope.covers(f"{bucket}-2/in/a.wav")


@pytest.mark.parametrize("key", ["in/a.wav", "in/gone.wav", "in"])
def test_an_object_of_a_list_is_that_object_and_none_whose_name_begins_alike(bucket: str, key: str):
    (found,) = Listing([], [f"{bucket}/{key}"])
    assert (found.uri, found.etag == MISSING_ETAG) == (f"{bucket}/{key}", key != "in/a.wav")


def test_a_folder_in_a_list_is_a_recording_that_cannot_be_used(folder: Path):
    (found,) = Listing([], [f"{folder}/in"])
    assert (found.uri, found.etag) == (f"{folder}/in", MISSING_ETAG)


def test_a_list_has_a_uri_on_each_line(folder: Path):
    text = f"\ufeff{folder}/in/b.wav\r\n\r\n{folder}/other/c.wav"
    (folder / "list.txt").write_text(text, encoding="utf-8", newline="")
    assert read_uri_list(f"{folder}/list.txt") == (f"{folder}/in/b.wav", f"{folder}/other/c.wav")


def test_a_list_lies_in_s3_too(bucket: str):
    boto3.client("s3").put_object(Bucket="discovery", Key="list.txt", Body=f"{bucket}/in/b.wav\n".encode())
    selection = Selection(uri_list=f"{bucket}/list.txt")
    assert uris(list_selected(selection)) == [f"{bucket}/in/b.wav"]


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
