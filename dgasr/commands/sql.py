"""`dgasr sql`: a question to the lake, answered on standard output."""

import argparse
import sys


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its flags."""
    parser = commands.add_parser("sql", help="ask the lake: SQL, a .sql file, or the name of a view")
    parser.add_argument("query", metavar="QUERY|FILE|VIEW", help='"select …", questions.sql, or latest_transcripts')
    parser.add_argument("--lake", required=True, metavar="URI", help="folder or s3://bucket/prefix of the lake")
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table", help="default: table")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Answer the question."""
    from dgasr.lake.shell import run_sql

    run_sql(options.query, options.lake, options.format, sys.stdout)
    return 0
