"""Python programs as processes that begin where their imports end: forked from one that has done nothing but import.

Importing torch and transformers takes longer than most of these programs. Each is a process of its own in all that a
test asks of one: session, environment, folder, output, signals, memory, exit status.
"""

import ctypes
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tests.proofs.processes import free_ports

ROOT = Path(__file__).parents[1]

IMPORTS = (
    "dgasr.serving.service",
    "dgasr.stages.engine",
    "dgasr.training.run",
    "dgasr.transcriber",
    "tools.base.together",
    "transformers.models.whisper.modeling_whisper",
)
"""What brings the others; none of them starts a thread, which a fork would not have."""


PR_SET_PDEATHSIG = 1
"""Of `prctl`: the signal that a process gets when its parent has ended."""


class Forked:
    """A program in the session of its own that it leads.

    Args:
        arguments: of Python, `-m MODULE …` or `-c PROGRAM …`.
        environment: all of it.
        cwd: its working folder.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], cwd: Path = ROOT) -> None:
        self._log = Path(_LOGS.name) / uuid.uuid4().hex
        request = {"arguments": arguments, "environment": dict(environment), "log": str(self._log), "cwd": str(cwd)}
        self.pid = _ask(request)
        self.returncode: int | None = None

    @property
    def output(self) -> str:
        """What it has said so far, on standard output and error."""
        return self._log.read_text() if self._log.exists() else ""

    def poll(self) -> int | None:
        """Give the exit status as `Popen` does, `None` while it runs."""
        if self.returncode is None:
            self.returncode = _ask({"pid": self.pid})
        return self.returncode

    def wait(self, timeout_s: float = 300.0) -> int:
        """Wait for its end and give its exit status.

        Raises:
            TimeoutError: it did not end.
        """
        deadline = time.monotonic() + timeout_s
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {self.pid} did not end in {timeout_s} s")
            time.sleep(0.05)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it and wait for its end."""
        self.send_signal(signal.SIGKILL)
        self.wait()


def run_ranks(arguments: Sequence[str], environment: Mapping[str, str], number: int = 2) -> None:
    """Run a program as torchrun does, in several processes that share their gradients, to their end.

    Raises:
        AssertionError: one of them failed.
    """
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_ports(1)[0]), "WORLD_SIZE": str(number)}
    ranks = [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(number)]
    processes = [Forked(arguments, {**environment, **rank}) for rank in ranks]
    assert [process.wait() for process in processes] == [0] * number, "\n".join(one.output for one in processes)


_LOGS = tempfile.TemporaryDirectory(prefix="dgasr-forked-")


@cache
def _parent() -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.forked"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _ask(request: dict[str, Any]) -> Any:
    parent = _parent()
    parent.stdin.write(json.dumps(request) + "\n")
    parent.stdin.flush()
    return json.loads(parent.stdout.readline())


def main() -> None:
    """Import, then fork a child for each request; a child leaves by running its program."""
    for name in IMPORTS:
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w")  # what a program prints is not taken for an answer
    for line in sys.stdin:
        request = json.loads(line)
        if "pid" in request:
            ended, status = os.waitpid(request["pid"], os.WNOHANG)
            found = os.waitstatus_to_exitcode(status) if ended else None
        elif not (found := os.fork()):
            answers.close()
            return _become(**request)
        answers.write(json.dumps(found) + "\n")
        answers.flush()


def _become(arguments: list[str], environment: dict[str, str], log: str, cwd: str) -> None:
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # no program outlives the tests that began it
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    with open(os.devnull) as nothing, open(log, "ab") as file:
        os.dup2(nothing.fileno(), 0)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    kind, what, *own = arguments
    sys.argv = [what if kind == "-m" else kind, *own]
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    main()
