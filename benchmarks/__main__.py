"""`python -m benchmarks [NAME [FLAGS]]`: run one benchmark; without a name the front end and the whole path."""

import importlib
import sys
from collections.abc import Sequence

from dgasr.errors import DgasrError

BENCHMARKS = {
    "frontend": "audio → segments → features, on one core",
    "path": "the sample recordings, read and decoded at several batch sizes",
    "occupancy": "rows in use on clips of mixed lengths, and what prompts take, without a model",
    "bound": "what a window of the full model costs, and what each lever would take off, by arithmetic",
    "gpu": "all that a GPU has to show, with a page; goes on where it was stopped (40 minutes there, 1 on a CPU)",
    "parity": "canvases and logits beside transformers' generate, on the published structure in small",
    "load": "`dgasr serve` under many clients at once: latencies, throughput, texts, memory (minutes)",
    "edges": "where speech between digital silence is said to begin and end (minutes)",
    "segmentation": "where recordings are cut, and what is taken for silence, by each method (minutes)",
    "sql": "every view over a million segments (minutes)",
}
"""Module of `benchmarks` → what it measures."""

UNNAMED = ("frontend", "path")


def main(arguments: Sequence[str]) -> int:
    """Run what is named; 0 for done, 2 for a wrong request."""
    name, flags = (arguments[0], arguments[1:]) if arguments else (None, [])
    if name is not None and name not in BENCHMARKS:
        lines = "".join(f"  {known:<12} {what}\n" for known, what in BENCHMARKS.items())
        sys.stderr.write(f"{__doc__}\n{lines}")
        return 0 if name in ("-h", "--help") else 2
    try:
        for chosen in (name,) if name else UNNAMED:
            importlib.import_module(f"benchmarks.{chosen}").main(flags)
    except DgasrError as error:
        sys.stderr.write(f"benchmarks: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
