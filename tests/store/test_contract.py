"""What every store promises: folders, S3 as moto speaks it, and Ceph's gateway where it is installed."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from dgasr.errors import ChangedDuringReadError, ObjectMissingError
from dgasr.store import (
    delete,
    list_objects,
    list_uris,
    open_object,
    probe_store,
    read_bytes,
    s3,
    write_bytes,
    write_if_absent,
)

pytestmark = pytest.mark.xdist_group("stores")  # as other tests on Ceph


@pytest.fixture
def place(make_place) -> str:
    """A folder or prefix with nothing in it, in every kind of store."""
    return make_place(uuid.uuid4().hex)


def test_objects_are_listed_in_the_order_of_their_keys_with_what_lies_below(place):
    for name in ("b.wav", "a/z.wav", "a.wav", "a/b/c.wav"):
        write_bytes(f"{place}/{name}", b"audio")
    found = list(list_objects(f"{place}/"))
    assert [one.uri for one in found] == [f"{place}/{name}" for name in ("a.wav", "a/b/c.wav", "a/z.wav", "b.wav")]
    assert {(one.size_bytes, one.modified_at.utcoffset().total_seconds()) for one in found} == {(5, 0.0)}


def test_an_object_asked_for_by_name_is_listed_without_its_neighbours_and_missing_ones_say_so(place):
    for name in ("call1.wav", "call1.wav.txt", "call10.wav"):
        write_bytes(f"{place}/{name}", b"audio")
    assert [recording.uri for recording in list_objects(f"{place}/call1.wav")] == [f"{place}/call1.wav"]
    (missing,) = list_objects(f"{place}/call2.wav")
    with pytest.raises(ObjectMissingError, match=r"call2\.wav"):
        open_object(missing)


@pytest.mark.parametrize("name", ["a b+c%20#?&.wav", "ünï/日本.wav", "100%25.wav"])
def test_any_name_is_listed_and_opened_again(place, name):
    write_bytes(f"{place}/{name}", b"audio")
    (recording,) = list_objects(f"{place}/")
    assert (recording.uri, open_object(recording).read()) == (f"{place}/{name}", b"audio")


def test_reading_and_seeking_give_the_same_bytes_as_the_whole(place, monkeypatch):
    monkeypatch.setattr(s3, "READ_BUFFER_BYTES", 1000)
    data = bytes(range(256)) * 40
    write_bytes(f"{place}/a.wav", data)
    (recording,) = list_objects(f"{place}/a.wav")
    with open_object(recording) as file:
        assert file.read(10) == data[:10]
        file.seek(-20, 2)
        assert file.read() == data[-20:]
        file.seek(500)
        assert file.read(3000) == data[500:3500]


def test_another_version_is_not_read_as_the_one_that_was_listed(place):
    write_bytes(f"{place}/a.wav", bytes(1000))
    (before,) = list_objects(f"{place}/a.wav")
    write_bytes(before.uri, bytes([1]) * 1001)
    (after,) = list_objects(f"{place}/a.wav")
    assert before.etag != after.etag
    with pytest.raises(ChangedDuringReadError):
        open_object(before).read()
    delete(before.uri)
    with pytest.raises(ObjectMissingError):
        open_object(after).read()


def test_of_many_writers_exactly_one_succeeds_and_nothing_else_is_left(place):
    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(lambda i: write_if_absent(f"{place}/part", bytes([i])), range(8)))
    assert written.count(True) == 1
    assert read_bytes(f"{place}/part") == bytes([written.index(True)])
    assert list(list_uris(f"{place}/")) == [f"{place}/part"]


def test_uris_of_a_folder_are_listed_and_deleting_twice_is_as_good_as_once(place):
    for name in ("lake/part-1", "lake/part-2", "lake/other", "lake2/other"):
        write_bytes(f"{place}/{name}", b"rows")
    assert list(list_uris(f"{place}/lake/")) == [f"{place}/lake/{name}" for name in ("other", "part-1", "part-2")]
    assert list(list_uris(f"{place}/nothing/")) == []
    for _ in range(2):
        delete(f"{place}/lake/other")
    assert len(list(list_uris(f"{place}/lake/"))) == 2
    with pytest.raises(ObjectMissingError):
        read_bytes(f"{place}/lake/other")


def test_a_place_where_nothing_lies_yet_will_do_for_a_lake_and_nothing_is_left_in_it(place):
    probe_store(f"{place}/lake")
    assert not [uri for uri in list_uris(f"{place}/") if not uri.endswith("/")]
