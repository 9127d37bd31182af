"""Measurements to repeat, a file per question: `python -m benchmarks NAME`. Not part of the installed package.

A benchmark is a module with `add_arguments(parser)` for its own flags and `run(options)`, which prints tables as they
come and returns its figures; `failed` among them names what must not be. The rest is `__main__`'s.
"""

import sys
from collections.abc import Sequence

from dgasr.tables import PIPE_WIDTH, format_table


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows for people, at once."""
    sys.stdout.write(format_table(columns, rows, PIPE_WIDTH))
    sys.stdout.flush()
