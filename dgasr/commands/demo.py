"""`dgasr demo`: the sample recordings through S3 and the real flow, and what came of them."""

import argparse
import importlib
from pathlib import Path


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its flags."""
    parser = commands.add_parser("demo", help="show the whole way on this machine: S3, flow, lake, SQL")
    parser.add_argument(
        "--lake", type=Path, default=Path("demo-lake"), metavar="FOLDER", help="lake to make anew (default: demo-lake)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run it. The flow lives in `pipelines`, which is found at run time: the library does not depend on it."""
    importlib.import_module("pipelines.demo").run_demo(options.lake)
    return 0
