import threading
import uuid
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dgasr import store
from dgasr.errors import ConfigError
from dgasr.store import probe_store, s3


def test_a_bucket_that_is_missing_and_a_folder_that_may_not_be_written_are_refused(s3_endpoint: str, tmp_path: Path):
    (tmp_path / "lake").touch()
    for lake, message in (
        ("s3://no-such-bucket/lake", r"s3://no-such-bucket/lake.*NoSuchBucket"),
        (f"{tmp_path}/lake", "no lake can be written there"),
    ):
        with pytest.raises(ConfigError, match=message):
            probe_store(lake)


def test_a_store_that_overwrites_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def ignore_condition(uri: str, data: bytes) -> bool:
        store.write_bytes(uri, data)
        return True

    monkeypatch.setattr(store, "write_if_absent", ignore_condition)
    with pytest.raises(ConfigError, match="ignores `If-None-Match"):
        probe_store(f"{tmp_path}/lake")


def test_an_answer_that_got_lost_is_no_sign_of_a_bad_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_if_absent = store.write_if_absent
    monkeypatch.setattr(store, "write_if_absent", lambda uri, data: write_if_absent(uri, data) and False)
    probe_store(f"{tmp_path}/lake")


def test_a_clock_that_is_wrong_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store, "MOST_SKEW", timedelta(seconds=-1))
    with pytest.raises(ConfigError, match="Set the clock that is wrong"):
        probe_store(f"{tmp_path}/lake")


@pytest.fixture
def refusing_endpoint(monkeypatch: pytest.MonkeyPatch):
    """An S3 server that answers every request with the error whose status and code stand in its `answer`."""

    class Handler(BaseHTTPRequestHandler):
        answer = (501, "NotImplemented")

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, code = self.answer
            body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    secret = uuid.uuid4().hex
    for name, value in (
        ("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", secret),
        ("AWS_SESSION_TOKEN", secret),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    s3._client_of.cache_clear()
    Handler.secret = secret
    yield Handler
    s3._client_of.cache_clear()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("answer", "remedy"),
    [
        ((501, "NotImplemented"), "conditional PUT"),
        ((400, "ExpiredToken"), "Renew the credentials"),
        ((403, "InvalidAccessKeyId"), "credentials"),
        ((403, "AccessDenied"), "Allow to write, read, list and delete"),
        ((403, "RequestTimeTooSkewed"), "Set this machine's clock"),
    ],
)
def test_a_store_that_refuses_is_told_apart_and_no_secret_is_said(refusing_endpoint, answer, remedy):
    refusing_endpoint.answer = answer
    with pytest.raises(ConfigError, match=remedy) as refusal:
        probe_store("s3://bucket/lake")
    assert answer[1] in str(refusal.value)
    assert refusing_endpoint.secret not in str(refusal.value)
