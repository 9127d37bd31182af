"""What bounds a request before there is anything to transcribe; no model, no process."""

import asyncio
import time

import httpx
import pytest

from dgasr.serving.app import create_app
from dgasr.serving.live import BusyError
from dgasr.serving.prepare import Prepared
from dgasr.serving.service import Service, ServingConfig


class Idle:
    """Stands for what reads and what transcribes: a second of silence, or a full queue."""

    is_closed, num_waiting = False, 0

    async def prepare(self, path):
        return Prepared(silent=(), spoken=(), duration_s=1.0, message=None)

    def submit(self, way, features, on_step=None):
        if way.language == "de":
            raise BusyError("9 segments wait.")
        return []


def ask(config=ServingConfig(), path="/transcribe", **request):  # noqa: B008
    app = create_app(Service("tiny", Idle(), Idle(), ("en", "de"), (2, 8), lambda *_: [], config))

    async def run():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://serve") as client:
            return await client.post(path, **request)

    return asyncio.run(run())


def form(size):
    async def blocks():
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(size // 1000):
            yield b"a" * 1000
        yield b"\r\n--x--\r\n"

    return {"content": blocks(), "headers": {"Content-Type": "multipart/form-data; boundary=x"}}


def test_a_form_without_a_length_is_bounded_as_it_comes():
    config = ServingConfig(max_bytes=100_000)
    assert ask(config, **form(90_000)).status_code == 200
    assert ask(config, **form(120_000)).status_code == 413
    assert ask(config, **form(10_000_000)).status_code == 413


def test_a_body_that_never_ends_is_given_up():
    async def drops():
        while True:
            yield b"a"
            await asyncio.sleep(0.05)

    started = time.monotonic()
    assert ask(ServingConfig(timeout_s=0.3), content=drops()).status_code == 408
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        ({"content": b"a", "headers": {"Content-Type": "multipart/form-data"}}, 400, "boundary"),
        ({"content": b"a", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 400, "multipart"),
        ({"content": b"a", "path": "/transcriptions"}, 404, "Not Found"),
        ({"content": b"a", "path": "/health"}, 405, "Method Not Allowed"),
    ],
)
def test_what_the_server_itself_refuses_is_said_as_all_else_is(request_, status, said):
    answer = ask(**request_)
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]


def test_a_length_that_nobody_means_is_refused_at_once():
    assert ask(content=b"", headers={"Content-Length": "99999999999"}).status_code == 413


@pytest.mark.parametrize(("params", "status"), [({}, 200), ({"language": "de"}, 429), ({"language": "fr"}, 400)])
def test_a_full_queue_is_told_apart_from_a_wrong_request(params, status):
    answer = ask(content=b"a", params=params)
    assert answer.status_code == status
    assert (answer.headers.get("Retry-After") == "5") == (status == 429)


def test_a_stream_of_another_kind_is_refused_and_one_of_silence_is_done_at_once():
    assert ask(content=b"a", params={"stream": "true"}).status_code == 400
    answer = ask(content=b"a", params={"stream": "denoise"})
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert answer.text.startswith("event: done\ndata: {")
    assert ask(content=b"a", params={"stream": "denoise", "language": "de"}).status_code == 429


def test_addresses_are_not_fetched_unless_that_was_allowed():
    assert ask(json={"audio_url": "http://example.org/a"}).status_code == 403
