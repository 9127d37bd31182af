"""An S3 endpoint behind a proxy that breaks connections: what is read is whole, and what was written is known."""

import threading
import uuid
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import boto3
import pytest

from dgasr.store import list_objects, open_object, read_bytes, s3, write_bytes, write_if_absent
from tests.proofs.faults import Faults, Relay, Server


@pytest.fixture
def inject(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, float]], None]]:
    """Function that sets what goes wrong between this process and the endpoint."""
    faults = Faults(seed=0)
    relay = type("TestRelay", (Relay,), {"faults": faults, "upstream": urlsplit(s3_endpoint).netloc})
    server = Server(("127.0.0.1", 0), relay)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with monkeypatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
        s3._client_of.cache_clear()
        yield lambda rates: faults.set(rates, 0.0)
        s3._client_of.cache_clear()
    server.shutdown()
    server.server_close()


@pytest.fixture
def uri(s3_endpoint: str) -> str:
    bucket = f"bucket-{uuid.uuid4().hex}"
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket=bucket)
    return f"s3://{bucket}/object"


def test_a_body_that_breaks_off_is_asked_for_again(inject, uri):
    write_bytes(uri, bytes(100_000))
    (recording,) = list_objects(uri)
    inject({"cut_body": 0.4})
    assert read_bytes(uri) == bytes(100_000)
    with open_object(recording) as file:
        assert file.read() == bytes(100_000)


def test_a_write_whose_answer_was_lost_is_there_once(inject, uri):
    inject({"reset_after": 0.5})
    write_if_absent(uri, b"first")
    assert not write_if_absent(uri, b"second")
    inject({})
    assert read_bytes(uri) == b"first"
