"""`dgasr sql`: questions to the lake, answered on standard output or in a file; without a question, a shell."""

import argparse
import os
import sys
from contextlib import suppress
from pathlib import Path

from dgasr.commands.arguments import given_uri

FORMATS = ("table", "csv", "json", "parquet", "md")


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its flags."""
    parser = commands.add_parser("sql", help="ask the lake: SQL, a .sql file, the name of a view, or a shell")
    question = '"select …", questions.sql, or latest_transcripts; without it a shell, or what standard input says'
    parser.add_argument("query", nargs="?", metavar="QUERY|FILE|VIEW", help=question)
    parser.add_argument(
        "--lake", type=given_uri, required=True, metavar="URI", help="folder or s3://bucket/prefix of the lake"
    )
    parser.add_argument("--format", choices=FORMATS, default="table", help="default: table")
    parser.add_argument("--out", metavar="FILE", help="write the answer there")
    parser.add_argument("--recipe", default="", metavar="ID", help="prefer this recipe's transcripts to newer ones")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Answer the question, or those that are typed."""
    from dgasr.errors import ConfigError
    from dgasr.lake.query import run_sql

    if options.query is None and sys.stdin.isatty():
        from dgasr.lake.console import converse

        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        converse(options.lake, options.format, options.recipe, state / "dgasr" / "sql_history")
        return 0
    question = sys.stdin.read() if options.query is None else options.query
    if options.out is None:
        run_sql(question, options.lake, options.format, sys.stdout, options.recipe)
        return 0
    part = Path(f"{options.out}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as out:
            run_sql(question, options.lake, options.format, out, options.recipe)
        part.replace(options.out)
    except OSError as error:
        raise ConfigError(f"--out {options.out}: cannot be written ({error}). Give another file.") from error
    finally:
        with suppress(OSError):  # whatever kept it from being written
            part.unlink()
    return 0
