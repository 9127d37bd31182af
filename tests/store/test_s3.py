"""S3 keeps the store's promises, over real HTTP."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

from dgasr.errors import ChangedDuringReadError, ConfigError, ObjectError, ObjectMissingError, TransientError
from dgasr.records import Recording
from dgasr.store import s3
from dgasr.store.locations import EPOCH
from dgasr.store.objects import (
    delete,
    list_objects,
    list_uris,
    open_object,
    read_bytes,
    write_bytes,
    write_if_absent,
)


@pytest.fixture
def bucket(s3_endpoint):
    name = f"bucket-{uuid.uuid4().hex}"
    boto3.client("s3").create_bucket(Bucket=name)
    return name


def test_a_prefix_is_listed_in_the_order_of_keys(bucket):
    for key in ("in/b.wav", "in/a.wav", "in/c/d.wav", "out/e.wav"):
        write_bytes(f"s3://{bucket}/{key}", b"audio")
    found = [recording.uri for recording in list_objects(f"s3://{bucket}/in/")]
    assert found == [f"s3://{bucket}/in/{name}" for name in ("a.wav", "b.wav", "c/d.wav")]


def test_listing_goes_on_after_a_page(bucket, monkeypatch):
    for number in range(5):
        write_bytes(f"s3://{bucket}/{number}", b"audio")
    client = s3._client()
    pages = client.get_paginator("list_objects_v2")
    monkeypatch.setattr(client, "get_paginator", lambda name: _ShortPages(pages))
    assert len(list(list_objects(f"s3://{bucket}"))) == 5


class _ShortPages:
    def __init__(self, pages):
        self._pages = pages

    def paginate(self, **arguments):
        return self._pages.paginate(**arguments, PaginationConfig={"PageSize": 2})


def test_a_listed_object_carries_size_etag_and_time(bucket):
    write_bytes(f"s3://{bucket}/a.wav", b"audio")
    (recording,) = list_objects(f"s3://{bucket}/a.wav")
    assert (recording.size_bytes, len(recording.etag), recording.modified_at.utcoffset().total_seconds()) == (5, 32, 0)


def test_an_object_asked_for_by_name_is_listed_without_its_neighbours(bucket):
    for key in ("call1.wav", "call1.wav.txt", "call10.wav"):
        write_bytes(f"s3://{bucket}/{key}", b"audio")
    assert [recording.uri for recording in list_objects(f"s3://{bucket}/call1.wav")] == [f"s3://{bucket}/call1.wav"]


@pytest.mark.parametrize("key", ["a b+c%20#?&.wav", "ünï/日本.wav", "a//b.wav"])
def test_any_key_is_listed_and_opened_again(bucket, key):
    write_bytes(f"s3://{bucket}/{key}", b"audio")
    (recording,) = list_objects(f"s3://{bucket}")
    assert (recording.uri, open_object(recording).read()) == (f"s3://{bucket}/{key}", b"audio")


def test_a_missing_object_is_listed_and_says_so_when_opened(bucket):
    (recording,) = list_objects(f"s3://{bucket}/nothing.wav")
    with pytest.raises(ObjectMissingError):
        open_object(recording)


def test_an_archived_object_names_its_class_and_the_remedy(bucket):
    boto3.client("s3").put_object(Bucket=bucket, Key="old.wav", Body=b"audio", StorageClass="DEEP_ARCHIVE")
    (recording,) = list_objects(f"s3://{bucket}/old.wav")
    with pytest.raises(ObjectError, match=r"DEEP_ARCHIVE.*restore-object"):
        open_object(recording).read()


def test_an_empty_prefix_lists_nothing(bucket):
    assert list(list_objects(f"s3://{bucket}/2026-11-21/")) == []


def test_a_missing_bucket_is_a_wrong_request(s3_endpoint):
    with pytest.raises(ConfigError, match="NoSuchBucket"):
        list(list_objects("s3://no-such-bucket/in/"))


def test_reading_and_seeking_give_the_same_bytes_as_the_whole(bucket, monkeypatch):
    monkeypatch.setattr(s3, "READ_BUFFER_BYTES", 1000)
    data = bytes(range(256)) * 40
    write_bytes(f"s3://{bucket}/a.wav", data)
    (recording,) = list_objects(f"s3://{bucket}/a.wav")
    file = open_object(recording)
    assert file.read(10) == data[:10]
    file.seek(-20, 2)
    assert file.read() == data[-20:]
    file.seek(500)
    assert file.read(3000) == data[500:3500]
    file.seek(0)
    assert file.read() == data


def test_an_object_replaced_while_it_is_read_is_not_mixed(bucket, monkeypatch):
    monkeypatch.setattr(s3, "READ_BUFFER_BYTES", 100)
    write_bytes(f"s3://{bucket}/a.wav", bytes(1000))
    (recording,) = list_objects(f"s3://{bucket}/a.wav")
    file = open_object(recording)
    file.read(50)
    write_bytes(recording.uri, bytes([1]) * 1000)
    with pytest.raises(ChangedDuringReadError):
        file.read()


def test_an_object_deleted_after_listing_is_missing(bucket):
    write_bytes(f"s3://{bucket}/a.wav", b"audio")
    (recording,) = list_objects(f"s3://{bucket}/a.wav")
    delete(recording.uri)
    with pytest.raises(ObjectMissingError):
        open_object(recording).read()


def test_of_many_writers_exactly_one_succeeds(bucket):
    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(lambda i: write_if_absent(f"s3://{bucket}/part", bytes([i])), range(8)))
    assert written.count(True) == 1
    assert read_bytes(f"s3://{bucket}/part") == bytes([written.index(True)])


def test_what_is_written_if_absent_goes_in_one_put_however_large(bucket):
    # Ceph ignores the condition where an upload of several parts is completed.
    calls = []
    s3._client().meta.events.register("before-call.s3", lambda model, **_: calls.append(model.name), unique_id="calls")
    try:
        assert write_if_absent(f"s3://{bucket}/part", bytes(2 * TransferConfig().multipart_threshold))
    finally:
        s3._client().meta.events.unregister("before-call.s3", unique_id="calls")
    assert calls == ["PutObject"]


def test_uris_are_listed_by_prefix(bucket):
    for key in ("lake/part-1", "lake/part-2", "other"):
        write_bytes(f"s3://{bucket}/{key}", b"rows")
    assert list(list_uris(f"s3://{bucket}/lake/")) == [f"s3://{bucket}/lake/part-1", f"s3://{bucket}/lake/part-2"]


def test_deleting_twice_is_as_good_as_once(bucket):
    write_bytes(f"s3://{bucket}/a", b"1")
    delete(f"s3://{bucket}/a")
    delete(f"s3://{bucket}/a")
    with pytest.raises(ObjectMissingError):
        read_bytes(f"s3://{bucket}/a")


def test_an_endpoint_that_does_not_answer_may_work_next_time(s3_endpoint, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    client = boto3.client("s3")
    monkeypatch.setattr(s3, "_client", lambda: client)
    with pytest.raises(TransientError, match="AWS_ENDPOINT_URL"):
        read_bytes("s3://bucket/a")


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("SlowDown", 503, TransientError),
        ("InternalError", 500, TransientError),
        ("ConditionalRequestConflict", 409, TransientError),
        ("InvalidAccessKeyId", 403, ConfigError),
        ("416", 416, ChangedDuringReadError),
    ],
)
def test_errors_of_the_service_say_who_acts(s3_endpoint, monkeypatch, code, status, expected):
    client = boto3.client("s3")

    def fail(**arguments):
        raise client.exceptions.ClientError(
            {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject"
        )

    monkeypatch.setattr(client, "get_object", fail)
    monkeypatch.setattr(s3, "_client", lambda: client)
    recording = Recording(uri="s3://b/a", etag="0", size_bytes=9, modified_at=EPOCH)
    with pytest.raises(expected):
        open_object(recording).read()


def test_servers_are_sent_no_checksums_that_only_amazon_knows(bucket, monkeypatch):
    for name in ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION"):
        monkeypatch.delenv(name, raising=False)
    s3._client_of.cache_clear()
    config = s3._client().meta.config
    assert (config.request_checksum_calculation, config.response_checksum_validation) == ("when_required",) * 2


def test_a_large_object_is_written_in_parts(bucket, monkeypatch):
    monkeypatch.setattr(s3, "MULTIPART_BYTES", 2**20)
    monkeypatch.setattr(s3, "MULTIPART", TransferConfig(multipart_threshold=2**20, multipart_chunksize=5 * 2**20))
    data = bytes(range(256)) * 2**15  # 8 MiB
    write_bytes(f"s3://{bucket}/large", data)
    (recording,) = list_objects(f"s3://{bucket}/large")
    assert recording.etag.endswith("-2")
    assert open_object(recording).read(len(data)) == data


def test_a_password_in_the_endpoints_url_is_not_said(s3_endpoint, monkeypatch):
    client = boto3.client(
        "s3", endpoint_url="http://someone:hunter2@127.0.0.1:1", config=Config(retries={"total_max_attempts": 1})
    )
    monkeypatch.setattr(s3, "_client", lambda: client)
    with pytest.raises(TransientError) as failure:
        read_bytes("s3://bucket/a")
    assert "hunter2" not in str(failure.value)


def test_a_bucket_whose_name_cannot_be_is_named(s3_endpoint):
    with pytest.raises(ConfigError, match=r"s3://My Bucket/in: cannot be the name"):
        next(list_objects("s3://My Bucket/in"))
