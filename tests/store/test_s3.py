"""S3 keeps the store's promises, over real HTTP."""

import threading
import uuid
from http.server import BaseHTTPRequestHandler, HTTPServer

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

from dgasr.errors import ChangedDuringReadError, ConfigError, ObjectError, TransientError
from dgasr.records import EPOCH, Recording
from dgasr.store import list_objects, open_object, read_bytes, s3, write_bytes, write_if_absent


@pytest.fixture
def bucket(s3_endpoint):
    name = f"bucket-{uuid.uuid4().hex}"
    boto3.client("s3").create_bucket(Bucket=name)
    return name


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


def test_an_archived_object_names_its_class_and_the_remedy(bucket):
    boto3.client("s3").put_object(Bucket=bucket, Key="old.wav", Body=b"audio", StorageClass="DEEP_ARCHIVE")
    (recording,) = list_objects(f"s3://{bucket}/old.wav")
    with pytest.raises(ObjectError, match=r"DEEP_ARCHIVE.*restore-object"):
        open_object(recording).read()


@pytest.mark.parametrize(
    ("source", "message"),
    [("s3://no-such-bucket/in/", "NoSuchBucket"), ("s3://My Bucket/in", "s3://My Bucket/in: cannot be the name")],
)
def test_a_missing_bucket_and_one_whose_name_cannot_be_are_wrong_requests(s3_endpoint, source, message):
    with pytest.raises(ConfigError, match=message):
        next(list_objects(source))


def test_what_is_written_if_absent_goes_in_one_put_however_large(bucket):
    # Ceph ignores the condition where an upload of several parts is completed.
    calls = []
    s3._client().meta.events.register("before-call.s3", lambda model, **_: calls.append(model.name), unique_id="calls")
    try:
        assert write_if_absent(f"s3://{bucket}/part", bytes(2 * TransferConfig().multipart_threshold))
    finally:
        s3._client().meta.events.unregister("before-call.s3", unique_id="calls")
    assert calls == ["PutObject"]


def test_an_endpoint_that_does_not_answer_may_work_next_time_and_a_password_in_its_url_is_not_said(
    s3_endpoint, monkeypatch
):
    client = boto3.client(
        "s3", endpoint_url="http://someone:hunter2@127.0.0.1:1", config=Config(retries={"total_max_attempts": 1})
    )
    monkeypatch.setattr(s3, "_client", lambda: client)
    with pytest.raises(TransientError, match="AWS_ENDPOINT_URL") as failure:
        read_bytes("s3://bucket/a")
    assert "hunter2" not in str(failure.value)


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


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"Code": "InvalidObjectState", "StorageClass": "INTELLIGENT_TIERING", "AccessTier": "ARCHIVE_ACCESS"},
         "INTELLIGENT_TIERING, ARCHIVE_ACCESS.*restore-object"),
        ({"Code": "InvalidRequest", "Message": "Stored using Server\nSide Encryption."},
         r"status 400: Stored using Server Side Encryption\).*the key that it is encrypted with"),
        ({"Code": "AccessDenied"}, "no reason is given.*Requester Pays"),
    ],
)  # fmt: skip
def test_what_the_service_says_of_an_object_stands_in_its_message(s3_endpoint, answer, message):
    error = ClientError({"Error": answer, "ResponseMetadata": {"HTTPStatusCode": 400}}, "GetObject")
    with pytest.raises(ObjectError, match=message):
        s3.raise_translated(error, "s3://b/a")


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


def test_a_web_console_in_the_place_of_s3_is_a_wrong_request(s3_endpoint, monkeypatch):
    class Console(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *arguments: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Console) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setattr(s3, "_client", lambda: client)
        with pytest.raises(ConfigError, match="redirects without end"):
            read_bytes("s3://bucket/a")
        server.shutdown()
