"""How a proof in a theatre goes: a folder that vanishes, logs that stay, figures with the time of it all."""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.proofs import figures
from tests.proofs.processes import end_on_signals
from tests.proofs.theatre import Theatre

Play = Callable[[Theatre, argparse.Namespace], tuple[dict[str, Any], list[str]]]
"""What is done in the theatre: figures, and what is not as it should be."""

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
"""For every process: they share the cores, and more threads would fight over them."""


def prove(name: str, options: argparse.Namespace, play: Play) -> int:
    """Play in a theatre, keep its logs whatever happens, print and write the figures, and return the exit code.

    Args:
        name: of the proof, and of what it leaves in `options.out`.
        options: the flags of `figures.make_parser`, and those that `play` looks at.
        play: the proof.
    """
    end_on_signals()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"dgasr-{name}-") as folder:
        with Theatre(Path(folder), seed=options.seed, **ONE_THREAD) as theatre:
            try:
                found, failures = play(theatre, options)
            finally:
                keep_logs(theatre, options.out / f"{name}-logs")
        found["whole proof, s"] = time.monotonic() - started
        return figures.finish(name, options, found, failures)


def keep_logs(theatre: Theatre, folder: Path) -> None:
    """Copy the logs out of the theatre's folder before it vanishes."""
    folder.mkdir(parents=True, exist_ok=True)
    for log in (theatre.folder / "logs").iterdir():
        (folder / log.name).write_bytes(log.read_bytes())
