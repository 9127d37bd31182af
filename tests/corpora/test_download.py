"""Corpora come over HTTP from a server on loopback: cut off, damaged, refused, and from one that answers as the Hub."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dgasr.corpora.layouts import LIBRISPEECH_MD5
from dgasr.corpora.prepare import download, fetch_file
from dgasr.errors import ConfigError

CONTENT = bytes(range(256)) * 4_000
MD5 = hashlib.md5(CONTENT).hexdigest()
REVISION = "d" * 40
HUB_FILES = {"data/de_de/test.tsv": b"1\ta.wav\tHallo\n", "data/de_de/audio/test.tar.gz": b"packed",
             "data/fr_fr/test.tsv": b"not wanted"}  # fmt: skip


class Server(BaseHTTPRequestHandler):
    """Serves one file with ranges, breaking off after `broken_after` bytes, and one dataset as the Hub does."""

    broken_after: int | None = None
    requests: list[str]

    def do_HEAD(self):
        self._answer(is_head=True)

    def do_GET(self):
        self._answer(is_head=False)

    def _answer(self, is_head):
        type(self).requests.append(f"{self.path} {self.headers.get('Range', '')}".strip())
        if self.path.startswith(f"/api/datasets/google/fleurs/tree/{REVISION}"):
            entries = ({"type": "file", "path": name, "size": len(own), "oid": name} for name, own in HUB_FILES.items())
            self._send(json.dumps(list(entries)).encode(), is_head)
        elif self.path.startswith("/api/datasets/google/fleurs"):
            siblings = ",".join(f'{{"rfilename": "{name}"}}' for name in HUB_FILES)
            self._send(f'{{"id": "google/fleurs", "sha": "{REVISION}", "siblings": [{siblings}]}}'.encode(), is_head)
        elif found := re.fullmatch(rf"/datasets/google/fleurs/resolve/{REVISION}/(.*)", self.path):
            self._send(HUB_FILES[found[1]], is_head, {"X-Repo-Commit": REVISION, "ETag": f'"{found[1]}"'})
        elif self.path == "/corpus/test-clean.tar.gz":
            self._send_file(int((self.headers.get("Range") or "bytes=0-")[6:-1]))
        else:
            self.send_error(404)

    def _send(self, content, is_head, headers=()):
        self.send_response(200)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not is_head:
            self.wfile.write(content)

    def _send_file(self, start):
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        end = len(CONTENT) if self.broken_after is None else start + self.broken_after
        self.wfile.write(CONTENT[start:end])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    Server.broken_after, Server.requests = None, []
    served = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()


def test_what_breaks_off_goes_on_where_it_was(server, tmp_path, monkeypatch):
    monkeypatch.setitem(LIBRISPEECH_MD5, "test.clean", MD5)
    counts = []

    def fetch():
        return download(
            "librispeech", "test.clean", "en", tmp_path, lambda count, _: counts.append(count), f"{server}/corpus"
        )

    Server.broken_after = 300_000
    with pytest.raises(ConfigError, match="goes on from there"):
        fetch()
    Server.broken_after = None
    assert (fetch() / "test-clean.tar.gz").read_bytes() == CONTENT
    assert [request.split("=")[-1] for request in Server.requests[1:]] == ["300000-"]
    fetch()  # is there already
    assert len(Server.requests) == 2
    assert sum(counts) == 300_000 + len(CONTENT)


@pytest.mark.parametrize(("name", "message"), [("corpus/test-clean.tar.gz", "checksum"), ("nothing.tar.gz", "404")])
def test_what_comes_damaged_or_not_at_all_is_dropped_and_named(server, tmp_path, name, message):
    with pytest.raises(ConfigError, match=message):
        fetch_file(f"{server}/{name}", tmp_path / "a.tar.gz", "0" * 32, lambda *_: None)
    assert not list(tmp_path.iterdir())


def test_from_the_hub_only_the_subsets_files_come(server, tmp_path):
    code = (
        "from pathlib import Path; from dgasr.corpora.prepare import download;"
        "folder = download('fleurs', 'test', 'de', Path('.'), print);"
        "print(sorted(str(p.relative_to(folder)) for p in folder.rglob('*') if p.is_file()))"
    )
    environment = {**os.environ, "HF_ENDPOINT": server, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "0",
                   "HF_HUB_DISABLE_XET": "1"}  # fmt: skip
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "['data/de_de/audio/test.tar.gz', 'data/de_de/test.tsv']"
