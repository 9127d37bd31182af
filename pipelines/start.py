"""`python -m pipelines.start server|control|cpu|gpu`: this process becomes a Prefect server or a worker of a pool.

It is replaced, not wrapped: signals reach Prefect itself, which a shell's `&` or a parent process would keep from it.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from pipelines import SERVER, WORKER, complete

LIMITS = {"control": 10, "cpu": 1, "gpu": 1}
"""Flow runs that one worker of a pool runs at once: parents only wait; the others have a machine to themselves."""


def main(arguments: Sequence[str]) -> None:
    """Become what the arguments say; returns only where the program cannot be started."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.start", description=__doc__)
    parser.add_argument("what", choices=("server", *LIMITS))
    parser.add_argument("--host", default="127.0.0.1", help="address that the server listens on")
    parser.add_argument("--port", type=int, default=4200, help="its port")
    parser.add_argument("--limit", type=int, help="flow runs at once (default: 10 for control, 1 for cpu and gpu)")
    parser.add_argument("--name", help="name of the worker (default: one is made up)")
    options = parser.parse_args(arguments)
    if options.what == "server":
        command, wanted = ["server", "start", "--host", options.host, "--port", str(options.port)], SERVER
    else:
        limit = options.limit or LIMITS[options.what]
        command = ["worker", "start", "--pool", options.what, "--type", "process", "--limit", str(limit)]
        command += ["--name", options.name] if options.name else []
        wanted = WORKER
    environment = complete(os.environ, wanted)
    # Flow runs are started by name, and have to find the Python that has this package.
    environment["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), environment.get("PATH", os.defpath)])
    os.execve(sys.executable, [sys.executable, "-m", "prefect", *command], environment)


if __name__ == "__main__":
    main(sys.argv[1:])
