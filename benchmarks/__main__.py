"""`python -m benchmarks [NAME [FLAGS]]`: run one benchmark; without a name `path`.

Each prints tables, and then its figures as one line of JSON, which `--json FILE` also writes.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dgasr.commands.arguments import check_output_file
from dgasr.errors import DgasrError, IntegrityError

BENCHMARKS = {
    "path": "audio → segments → features on one core; the sample recordings, read and decoded at several batch sizes",
    "occupancy": "rows in use on clips of mixed lengths, and what prompts take, without a model",
    "bound": "what a window of the full model costs, and what each lever would take off, by arithmetic",
    "gpu": "all that a GPU has to show, with a page; goes on where it was stopped (40 minutes there, 1 on a CPU)",
    "parity": "canvases and logits beside transformers' generate, on the published structure in small",
    "load": "`dgasr serve` under many clients at once: latencies, throughput, texts, memory (minutes)",
    "edges": "where speech between digital silence is said to begin and end (minutes)",
    "sql": "every view over a million segments (minutes)",
}
"""Module of `benchmarks` → what it measures."""


def run(name: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Run one benchmark and write its figures.

    Raises:
        IntegrityError: what it holds something against does not hold.
    """
    module: Any = importlib.import_module(f"benchmarks.{name}")
    parser = argparse.ArgumentParser(prog=f"benchmarks {name}", description=module.__doc__)
    module.add_arguments(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    options = parser.parse_args(arguments)
    check_output_file("--json", options.json)
    figures: dict[str, Any] = {"benchmark": name, **module.run(options)}
    text = json.dumps(figures) + "\n"
    sys.stdout.write(text)
    if options.json:
        options.json.write_text(text, encoding="utf-8")
    if figures.get("failed"):
        raise IntegrityError(f"{name}: {', '.join(figures['failed'])}. Find out why before anything is trusted.")
    return figures


def main(arguments: Sequence[str]) -> int:
    """Run what is named; 0 for done, 2 for a wrong request or what does not hold."""
    name, *flags = arguments or ["path"]
    if name not in BENCHMARKS:
        lines = "".join(f"  {known:<12} {what}\n" for known, what in BENCHMARKS.items())
        sys.stderr.write(f"{__doc__}\n{lines}")
        return 0 if name in ("-h", "--help") else 2
    try:
        run(name, flags)
    except DgasrError as error:
        sys.stderr.write(f"benchmarks: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
