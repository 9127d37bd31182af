"""Asking the Hub for weights, over HTTP: a server on loopback answers as the Hub does."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dgasr.model.identity import ADAPTER_FILES
from dgasr.model.presets import full

REVISION = "c" * 40
OPEN, GATED = full().pretrained["encoder"], full().pretrained["backbone"]

ASK = """
import sys
from dgasr.errors import ConfigError
from dgasr.model.identity import identify
try:
    print(identify("full", sys.argv[1])[1].digest)
except ConfigError as error:
    print(f"ConfigError: {error}")
"""


PUBLISHED, FILE, CONTENT = "somebody/adapter", "adapter_small.pt", b"tensors"


class Hub(BaseHTTPRequestHandler):
    """Tells the revision of one model, refuses another as the Hub refuses gated ones, and holds an adapter's file."""

    def do_HEAD(self):
        self.send_response(200 if self.path == f"/{PUBLISHED}/resolve/{REVISION}/{FILE}" else 404)
        headers = {"X-Repo-Commit": REVISION, "ETag": '"1"', "Content-Length": str(len(CONTENT))}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def do_GET(self):
        if self.path.startswith(f"/{PUBLISHED}/resolve"):
            self.do_HEAD()
            self.wfile.write(CONTENT)
            return
        if self.path.startswith(f"/api/models/{PUBLISHED}"):
            self.send_response(200)
            self.end_headers()
            if "/tree/" in self.path:
                self.wfile.write(json.dumps([{"type": "file", "path": FILE, "size": 7, "oid": "1"}]).encode())
            else:
                about = {"id": PUBLISHED, "sha": REVISION, "siblings": [{"rfilename": FILE}, {"rfilename": "a.md"}]}
                self.wfile.write(json.dumps(about).encode())
            return
        is_gated = self.path.endswith(GATED)
        self.send_response(403 if is_gated else 200)
        if is_gated:
            self.send_header("X-Error-Code", "GatedRepo")
            self.send_header("X-Error-Message", f"Access to model {GATED} is restricted")
        self.end_headers()
        self.wfile.write(json.dumps({"id": OPEN, "modelId": OPEN, "sha": REVISION}).encode())

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def endpoint():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_repository_that_holds_only_a_published_file_is_an_adapter(endpoint, tmp_path):
    ask = f"from dgasr.model.identity import adapter_files; print(*adapter_files({PUBLISHED!r}))"
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    for offline in ("0", "1"):  # once it is here, nobody is asked
        environment["HF_HUB_OFFLINE"] = offline
        asked = subprocess.run([sys.executable, "-c", ask], env=environment, capture_output=True, text=True, check=True)
        (path,) = asked.stdout.split()
        assert path.endswith(f"snapshots/{REVISION}/{FILE}")
        assert Path(path).read_bytes() == CONTENT


def test_gated_weights_say_which_licence_to_accept_and_how_to_log_in(endpoint, tmp_path):
    for name in ADAPTER_FILES:
        (tmp_path / name).write_text(name)
    where = {"HF_ENDPOINT": endpoint, "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0"}
    environment = {**os.environ, **where}
    asked = subprocess.run(
        [sys.executable, "-c", ASK, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    )
    assert asked.stdout.startswith(f"ConfigError: The weights of {GATED} are not to be had (GatedRepoError")
    assert f"Accept the licence at https://huggingface.co/{GATED}, run `hf auth login`" in asked.stdout
