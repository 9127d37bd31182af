"""`dgasr bench`: speed of the front end and of the whole path on this machine."""

import argparse
import importlib

BENCHMARKS = ("frontend", "path")


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its flags."""
    parser = commands.add_parser("bench", help="measure speed: the front end, and audio to text by batch size")
    parser.add_argument("what", nargs="?", choices=BENCHMARKS, help="only this one (default: both)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the benchmarks; each prints a table and a line of JSON."""
    for name in (options.what,) if options.what else BENCHMARKS:
        importlib.import_module(f"dgasr.bench.{name}").main()
    return 0
