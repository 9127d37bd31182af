"""Asking the Hub for weights, over HTTP: a server on loopback answers as the Hub does."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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


class Hub(BaseHTTPRequestHandler):
    """Tells the revision of one model, and refuses the other as the Hub refuses gated ones."""

    def do_GET(self):
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


def test_gated_weights_say_which_licence_to_accept_and_how_to_log_in(endpoint, tmp_path):
    for name in ADAPTER_FILES:
        (tmp_path / name).write_text(name)
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "0",
    }
    asked = subprocess.run(
        [sys.executable, "-c", ASK, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    )
    assert asked.stdout.startswith(f"ConfigError: The weights of {GATED} are not to be had (GatedRepoError")
    assert f"Accept the licence at https://huggingface.co/{GATED}, run `hf auth login`" in asked.stdout
