"""An HTTP proxy in front of an S3 endpoint that fails as storage does: at seeded rates, or altogether for a while.

`python -m tests.proofs.faults --upstream http://127.0.0.1:5000 --port 5001 --seed 0`. `POST /_faults` with JSON sets
`rates` and `outage_s`; `GET /_faults` returns what was counted.
"""

import argparse
import http.client
import json
import os
import random
import socket
import struct
import threading
import time
from collections import Counter
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.proofs.archive import WITHHELD

KINDS = ("error_500", "slow_down", "reset_before", "reset_after", "cut_body", "slow_body")
"""`reset_before`: the connection is reset and the store never gets the request; `reset_after`: the store has done
what was asked, and its answer is lost; `cut_body`: half of the answer, then a reset; `slow_body`: in drops."""

LAKE_FOLDERS = ("probes", "_delta_log", "transcripts", "runs", "evaluations", "presence")
"""Where conditional writes go. A refused one is a doubled row that did not come to be; probes only try the store."""

ONE_STEP = threading.Lock()
"""moto looks for `If-None-Match` whether there is an object, and then writes; S3 does both in one step."""

CONTROL_PATH = "/_faults"

SLOW_S = 2.0
"""How long a slow body takes."""

ERROR = "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>injected</Message></Error>"

ANSWERS = {
    "error_500": (500, "InternalError"),
    "slow_down": (503, "SlowDown"),
    "outage": (503, "ServiceUnavailable"),
    "vanished": (404, "NoSuchKey"),
    "forbidden": (403, "AccessDenied"),
    "replaced": (412, "PreconditionFailed"),
}

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "server", "date"}


class Faults:
    """What goes wrong, how often, and how often it did."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._rates: dict[str, float] = {}
        self._outage_until = 0.0
        self.counts: Counter[str] = Counter()

    def set(self, rates: dict[str, float] | None, outage_s: float) -> None:
        """Take new rates (share of requests by kind), and fail altogether for a while."""
        with self._lock:
            if rates is not None:
                assert set(rates) <= set(KINDS), rates
                self._rates = rates
            self._outage_until = time.monotonic() + outage_s

    def draw(self, method: str, path: str) -> str | None:
        """Choose what happens to a request; `None` lets it through."""
        with self._lock:
            kind = self._choose(method, path)
            self.counts["requests"] += 1
            if kind:
                self.counts[kind] += 1
            return kind

    def note_refusal(self, path: str) -> None:
        """Count a conditional write that the store refused: someone had written the same object before."""
        folder = next((name for name in LAKE_FOLDERS if f"/{name}/" in path), "other")
        with self._lock:
            self.counts[f"refused writes under {folder}/"] += 1

    def _choose(self, method: str, path: str) -> str | None:
        if time.monotonic() < self._outage_until:
            return "outage"
        name = path.rpartition("/")[2]
        if method == "GET" and "?" not in name:
            for word in WITHHELD:
                if word in name:
                    return word
        draw = self._random.random()
        for kind, rate in self._rates.items():
            draw -= rate
            if draw < 0:
                return kind
        return None


class Relay(BaseHTTPRequestHandler):
    """Passes a request on, unless something goes wrong."""

    protocol_version = "HTTP/1.1"
    faults: Faults
    upstream: str

    def relay(self) -> None:
        """Answer one request of any method."""
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        if self.path == CONTROL_PATH:
            self._control(body)
            return
        kind = self.faults.draw(self.command, self.path)
        if kind in ANSWERS:
            status, code = ANSWERS[kind]
            self._answer(status, [("Content-Type", "application/xml")], ERROR.format(code=code).encode())
        elif kind == "reset_before":
            self._reset()
        else:
            with ONE_STEP if self.headers.get("If-None-Match") else nullcontext():
                status, headers, data = self._ask(body)
            if self.command == "PUT" and status == 412:
                self.faults.note_refusal(self.path)
            if kind == "reset_after":
                self._reset()
            else:
                self._answer(status, headers, data, kind)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = relay  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        """Stay quiet: the counts say it."""

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.upstream, timeout=60)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
            connection.request(self.command, self.path, body=body, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, kind: str | None = None) -> None:
        lengths = [value for name, value in headers if name.lower() == "content-length"]
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        # The answer to HEAD states the length of what it does not carry.
        self.send_header("Content-Length", lengths[0] if self.command == "HEAD" and lengths else str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if kind == "cut_body":
            self.wfile.write(data[: len(data) // 2])
            self._reset()
        elif kind == "slow_body":
            for start in range(0, len(data), len(data) // 8 + 1):
                time.sleep(SLOW_S / 8)
                self.wfile.write(data[start : start + len(data) // 8 + 1])
        else:
            self.wfile.write(data)

    def _reset(self) -> None:
        """End the connection with RST instead of FIN: the client sees `Connection reset by peer`."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

    def _control(self, body: bytes) -> None:
        if body:
            wanted = json.loads(body)
            self.faults.set(wanted.get("rates"), wanted.get("outage_s", 0.0))
        counts = json.dumps(self.faults.counts).encode()
        self._answer(200, [("Content-Type", "application/json")], counts)


class Server(ThreadingHTTPServer):
    """A thread for each connection, and no word about clients that are killed in the middle of one."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: killed clients and resets are what this is for."""


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upstream", required=True, help="URL of the S3 endpoint")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    Relay.faults, Relay.upstream = Faults(options.seed), urlsplit(options.upstream).netloc
    Server(("127.0.0.1", options.port), Relay).serve_forever()


if __name__ == "__main__":
    main()
