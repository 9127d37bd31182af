"""Processes that a cluster starts: each in a session of its own with its log, all of them ended in the end.

A mark in their environment, which whatever they start inherits, finds the children of those that were killed too.
"""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

MARK = "DGASR_PROOF"
"""Variable whose value tells the processes of one cluster from all others."""

MODEL = os.environ.setdefault("DGASR_MODEL", "tiny")
"""What a proof transcribes with, in its processes too: the small model, unless somebody says otherwise."""

WAIT_S = 0.1
"""Between two looks at something that is to become true, s."""


def free_ports(number: int) -> list[int]:
    """Find ports that nobody listens on; all are held until the last is found, so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [found.getsockname()[1] for found in sockets]
    for found in sockets:
        found.close()
    return ports


class ProcessGroup:
    """All processes of a cluster."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        """Gather nobody yet.

        Args:
            folder: where the logs go.
            environment: what each process gets besides this process's own.
        """
        self.mark = secrets.token_hex(8)
        self.environment = {**os.environ, **environment, MARK: self.mark}
        self._folder = folder
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str], **environment: str) -> int:
        """Start a process; its output goes on in `name.log`. Returns its id."""
        with (self._folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                env=self.environment | environment,
            )  # fmt: skip
        self._started[name] = process
        return process.pid

    def is_running(self, name: str) -> bool:
        """Say whether a process of this name is running; a dead one is reaped."""
        return name in self._started and self._started[name].poll() is None

    def members(self) -> list[psutil.Process]:
        """Find all processes that bear the mark, whoever started them."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == self.mark:
                    found.append(process)
            except psutil.Error:
                continue
        return [process for process in found if process.pid != os.getpid()]

    def end(self) -> None:
        """End everyone, politely first, and their children whoever became their parent."""
        for process in self._started.values():
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + 5.0
        while time.monotonic() < deadline and self.members():
            time.sleep(WAIT_S)
            for process in self._started.values():
                process.poll()
        while members := self.members():
            for member in members:
                kill(member.pid)
            psutil.wait_procs(members, timeout=5)
        for process in self._started.values():
            process.wait()

    def tail(self, name: str, lines: int = 30) -> str:
        """Return the end of a log."""
        return "\n".join((self._folder / f"{name}.log").read_text(errors="replace").splitlines()[-lines:])

    def count_in_logs(self, text: str) -> int:
        """Count how often a text stands in all logs."""
        return sum(log.read_text(errors="replace").count(text) for log in self._folder.glob("*.log"))

    def wait_until(self, is_true: Callable[[], bool], what: str, name: str, timeout_s: float = 400.0) -> None:
        """Wait for something, as long as the process that should bring it lives.

        Raises:
            RuntimeError: the process ended, or the time is up; with the end of its log.
        """
        deadline = time.monotonic() + timeout_s
        while not is_true():
            if not self.is_running(name) or time.monotonic() > deadline:
                raise RuntimeError(f"{what} did not come true in {timeout_s:.0f} s. {name} said:\n{self.tail(name)}")
            time.sleep(WAIT_S)


def kill(process_id: int) -> bool:
    """Send SIGKILL; returns False where the process was gone already."""
    try:
        os.kill(process_id, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def end_on_signals() -> None:
    """Turn SIGTERM into `SystemExit`, so that `finally` blocks end what was started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
