"""What the process is that does the work: its name among all machines, its versions, its memory. Knows no work."""

import json
import os
import platform
import resource
import socket
import sys
from importlib.metadata import version
from pathlib import Path

REPORTED_PACKAGES = ("dgasr", "torch", "transformers", "numpy", "soundfile", "av", "soxr")
"""Packages that can change text or times, and so belong in a run's row."""


def worker_name() -> str:
    """Name this process among all machines: host and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


def versions_json() -> str:
    """Name the versions of Python and of all packages that can change text or times, as JSON."""
    return json.dumps({"python": platform.python_version()} | {p: version(p) for p in REPORTED_PACKAGES})


def peak_memory_bytes() -> int:
    """Return the largest resident memory this process has had."""
    try:
        # Linux hands `ru_maxrss` on to whatever a process starts: a small child of a large parent would seem large.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
