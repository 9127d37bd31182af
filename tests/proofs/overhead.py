"""What the flow costs beside the bare library: wall time and processor time over many short recordings.

    python -m tests.proofs.overhead --recordings 1000

Library and flow take turns, each in a process of its own (bare, flow, flow, bare, and so on), so that a machine that
becomes faster or slower meanwhile favours neither. Prefect's server is a process beside them.
"""

import argparse
import sys

from tests.proofs.archive import make_archive
from tests.proofs.cluster import Cluster
from tests.proofs.measured import Figures, measure
from tests.proofs.proof import make_parser, prove, say

MAX_RATIO = 1.10
WORDS = 12
"""Most words in a recording: about eight seconds."""


def main() -> int:
    """Run the proof and print what was found."""
    parser = make_parser(__doc__, 1000)
    parser.add_argument("--pairs", type=int, default=2, help="how often each is measured (2)")
    options = parser.parse_args()
    return prove("overhead", options, check)


def check(cluster: Cluster, options: argparse.Namespace) -> tuple[Figures, list[str]]:
    """Measure in turns; figures, and what is not as it should be."""
    cluster.start_prefect()
    archive = cluster.folder / "archive"
    make_archive(archive, options.recordings, seed=options.seed, is_withheld=False, num_words=WORDS, has_bad=False)
    measured: dict[str, list[Figures]] = {"bare": [], "flow": []}
    for turn in range(options.pairs):
        for name in ("bare", "flow") if turn % 2 == 0 else ("flow", "bare"):
            lake = cluster.folder / f"lake-{turn}"
            measured[name].append(measure(name, archive, lake, cluster.processes.environment))
            say(f"{name} {turn + 1}", measured[name][-1])
    found, failures = {}, []
    for kind in ("wall", "CPU"):
        both = {name: sum(values[f"{kind}, s"] for values in turns) for name, turns in measured.items()}
        ratio = both["flow"] / both["bare"]
        found |= {f"{name}: {kind}, s, of each": s / options.pairs for name, s in both.items()}
        found[f"{kind} time of the flow over the library"] = ratio
        if ratio > MAX_RATIO:
            failures.append(f"the flow takes {ratio:.3f} times the library's {kind} time, {MAX_RATIO} was wanted")
    words = {values["words"] for turns in measured.values() for values in turns}
    if len(words) > 1:
        failures.append(f"flow and library heard different numbers of words: {words}")
    return found | {"words": words.pop()}, failures


if __name__ == "__main__":
    sys.exit(main())
