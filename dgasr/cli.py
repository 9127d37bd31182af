"""The command line: arguments in, one command run, an exit code out. Imports a command's packages only when it runs.

Exit codes: 0 all good; 1 it may work next time, or the lake contradicts itself; 2 the request is wrong; 3 it is done,
and some recordings could not be used as a whole.
"""

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence

from dgasr.errors import ConfigError, DgasrError, printable_lines

COMMANDS = (
    "transcribe", "lake", "export", "serve", "evaluate", "corpora", "train", "model", "adapter",
    "doctor",
)  # fmt: skip
"""Modules of `dgasr.commands`, in the order of `dgasr --help`; each adds its commands to the parser."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, by the words after `dgasr`, those of the process where `None`; returns the exit code."""
    _open_streams()
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()  # here, where a reader that has gone can still be dealt with
    except BrokenPipeError:
        # As with `| head`: no fault of anybody's.
        _give_up_output()
        return 0
    except OSError as error:
        _give_up_output()
        return _fail(f"{error}. Make room, or mend the path or its permissions, and run again.", exit_code=1)


def _run(arguments: Sequence[str] | None) -> int:
    # Read by torch when it is imported: threads that wait without spinning. On a machine that has other work to do,
    # spinning makes small matrix products a hundred times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        options = build_parser().parse_args(arguments)
        return int(options.run(options))
    except ConfigError as error:
        return _fail(str(error), exit_code=2)
    except DgasrError as error:
        return _fail(str(error), exit_code=1)
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped. What was committed stays; the same command goes on from there.\n")
        return 130


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="dgasr",
        description="Transcribe audio archives with a diffusion decoder: S3 in, Parquet out, SQL on top.",
        epilog="`dgasr demo` shows all of it on this machine; `dgasr doctor` says what is missing. Exit codes: 0 all "
        "good; 1 try again, or the lake contradicts itself; 2 the request is wrong; 3 done, but some recordings could "
        "not be used as a whole.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(f"dgasr.commands.{name}").add_parser(commands)
    return parser


class _Version(argparse.Action):
    """Looks the version up when it is asked for: that takes longer than to build the parser."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        sys.stdout.write(f"dgasr {version('dgasr')}\n")
        parser.exit()


class _Terminal(io.TextIOWrapper):
    """Standard output that a person looks at: what is stored as it is, such as a CSV cell, steers no terminal."""

    def write(self, text: str) -> int:
        return super().write(printable_lines(text))


def _open_streams() -> None:
    """Let output be UTF-8 whatever the locale, and go nowhere where it was closed; on a terminal it is escaped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (as long as the process)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8")
            if name == "stdout" and stream.isatty():
                sys.stdout = _Terminal(stream.detach(), encoding="utf-8", line_buffering=True)


def _give_up_output() -> None:
    """Send what is left nowhere: Python would flush standard output at exit, and complain once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, exit_code: int) -> int:
    sys.stderr.write(f"dgasr: {printable_lines(message)}\n")
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
