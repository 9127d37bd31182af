"""What an `audio_url` may lead to: nothing but public hosts, whatever tricks are played on the way."""

import asyncio
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dgasr.serving import prepare
from dgasr.serving.prepare import FetchError, TooLargeError, fetch_audio, is_public


class Server(BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.split("?")[0]
        if name == "/redirect":
            self.send_response(302)
            self.send_header("Location", self.path.split("to=")[1])
            self.end_headers()
        elif name == "/loop":
            self.send_response(302)
            self.send_header("Location", "/loop")
            self.end_headers()
        elif name == "/hesitant":
            for byte in b"HTTP/1.1 200 OK\r\nX-Word: " + b"a" * 40:
                self.wfile.write(bytes([byte]))
                time.sleep(0.1)
        elif name in ("/audio", "/huge", "/slow", "/more"):
            self.send_response(200)
            if name == "/huge":
                self.send_header("Content-Length", "999999999999")
            self.end_headers()
            for _ in range(40 if name == "/slow" else 3):
                self.wfile.write(b"a" * (400 if name == "/more" else 10))
                self.wfile.flush()
                time.sleep(0.1 if name == "/slow" else 0)
        else:
            self.send_error(404)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    served = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield served.server_port
    served.shutdown()


@pytest.fixture
def get(tmp_path, monkeypatch, server):
    """Fetch with `audio.example` leading to the server on loopback, which counts as public here and no other does."""
    plain, public = socket.getaddrinfo, is_public
    names = {"audio.example": "127.0.0.1", "inside.example": "10.0.0.7"}
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *more, **kind: plain(names.get(host, host), *more, **kind))
    monkeypatch.setattr(prepare, "is_public", lambda address: address == "127.0.0.1" or public(address))

    def run(path, hosts=("*",), max_bytes=1000, timeout_s=5.0):
        url = path if not path.startswith("/") else f"http://audio.example:{server}{path}"
        asyncio.run(fetch_audio(url, tmp_path / "audio", hosts, max_bytes, timeout_s))
        return (tmp_path / "audio").read_bytes()

    return run


def test_audio_comes_also_by_a_redirect(get, server):
    assert get("/audio") == b"a" * 30
    assert get(f"/redirect?to=http://audio.example:{server}/audio", hosts=("audio.example",)) == b"a" * 30


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("file:///etc/passwd", "http or https"),
        ("ftp://audio.example/a", "http or https"),
        ("http://user:word@audio.example/a", "without a user"),
        ("http://audio.example:99999/a", "out of range"),
        ("http://[::1/a", "Invalid IPv6"),
        ("http://nowhere.invalid/a", "does not resolve"),
        ("http://inside.example/a", "not public"),
        ("http://127.0.0.2/a", "not public"),
        ("http://169.254.169.254/latest/meta-data", "not public"),
        ("http://[::1]/a", "not public"),
        ("http://[::ffff:10.0.0.7]/a", "not public"),
        ("http://[64:ff9b::a00:7]/a", "not public"),
        ("http://2130706434/a", "not public"),  # 127.0.0.2 as one number
        ("/redirect?to=http://inside.example/a", "not public"),
        ("/redirect?to=http://[::ffff:192.168.0.7]/a", "not public"),
        ("/redirect?to=file:///etc/passwd", "http or https"),
        ("/loop", "more than 4 redirects"),
        ("/absent", "answers 404"),
    ],
)
def test_what_leads_elsewhere_is_refused(get, path, message):
    with pytest.raises(FetchError, match=message):
        get(path)


def test_hosts_that_are_not_allowed_are_not_asked(get, server):
    with pytest.raises(FetchError, match="not among the hosts"):
        get("/audio", hosts=("other.example",))
    with pytest.raises(FetchError, match="not among the hosts"):
        get(f"/redirect?to=http://localhost:{server}/audio", hosts=("audio.example",))


def test_size_and_time_are_bounded(get):
    for path in ("/huge", "/more"):
        with pytest.raises(TooLargeError, match="more than 1,000 bytes"):
            get(path)
    for path in ("/slow", "/hesitant"):
        started = time.monotonic()
        with pytest.raises(FetchError, match="takes too long"):
            get(path, timeout_s=0.5)
        assert time.monotonic() - started < 3


def test_a_name_that_answers_differently_the_second_time_leads_to_the_first_answer(get, monkeypatch, server):
    plain, answers = socket.getaddrinfo, ["127.0.0.1", "127.0.0.2"]

    def resolve(host, *more, **kind):
        return plain(answers.pop(0) if host == "audio.example" else host, *more, **kind)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert get("/audio") == b"a" * 30
    assert answers == ["127.0.0.2"]  # asked once: the connection goes to the address that was looked at


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.1.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0",
                                     "100.64.0.1", "224.0.0.1", "::1", "::", "fe80::1%eth0", "fc00::1",
                                     "::ffff:127.0.0.1", "2002:7f00:1::", "2001:0:7f00:1::",
                                     "64:ff9b::7f00:1"])  # fmt: skip
def test_addresses_that_not_everybody_can_ask_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "64:ff9b::5db8:d822"])
def test_addresses_that_everybody_can_ask_are_public(address):
    assert is_public(address)
