"""`dgasr sql`: questions to a lake, answered there or in a file; `dgasr lake`: what keeps it in good order.

Each command has a function; the work is the lake's own.
"""

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from dgasr.commands.arguments import finite_float, given_uri
from dgasr.errors import ConfigError, printable

FORMATS = ("table", "csv", "json", "parquet", "md")
"""Of answers, as `dgasr.lake.query` knows them."""

SHOWN = 20
"""Findings, and files that would go, that are written out; the last line says how many there are."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add both commands, and those of `dgasr lake`."""
    sql = _add(commands, "sql", _sql, "ask the lake: SQL, a .sql file, or the name of a view")
    question = '"select …", questions.sql, or latest_transcripts (default: what standard input says)'
    sql.add_argument("query", nargs="?", metavar="QUERY|FILE|VIEW", help=question)
    sql.add_argument("--format", choices=FORMATS, default="table", help="default: table")
    sql.add_argument("--out", metavar="FILE", help="write the answer there")
    sql.add_argument("--recipe", default="", metavar="ID", help="prefer this recipe's transcripts to newer ones")
    allowed = "let it reach other files and the network: copy … to, attach, install; never the lake's own files"
    sql.add_argument("--allow-writes", action="store_true", help=allowed)
    about = "check, compact or vacuum a lake, list its files, or attach it to another DuckDB"
    parser = commands.add_parser("lake", help=about)
    own = parser.add_subparsers(metavar="COMMAND", required=True)
    check = _add(own, "check", _check, "find everything that is wrong with a lake, and say what to do")
    check.add_argument("--deep", action="store_true", help="read all columns, and compare identities too")
    check.add_argument("--all", action="store_true", help=f"write all findings, not only {SHOWN} faults and notes each")
    _add(own, "compact", _compact, "merge small files; safe while others write and read")
    _add(own, "attach", _attach, "write a script that makes the tables and views in anybody's DuckDB")
    files = _add(own, "files", _files, "list the Parquet files that hold a table's rows now, for any other reader")
    files.add_argument("table", nargs="?", default="segments", metavar="TABLE", help="default: segments")
    vacuum = _add(own, "vacuum", _vacuum, "remove what nobody needs any more; says what that is, unless --yes")
    vacuum.add_argument("--yes", action="store_true", help="remove it")
    vacuum.add_argument("--grace-days", type=_days, metavar="D", help="default: 2; see the operations guide")
    forget = _add(own, "forget", _forget, "take a damaged partition out, so that it is transcribed anew")
    forget.add_argument("partition", metavar="PARTITION", help="recipe_id=…/date=YYYY-MM-DD, or runs/date=YYYY-MM-DD")
    forget.add_argument("--yes", action="store_true", help="remove it")


def _add(own: Any, name: str, run: Callable[[argparse.Namespace], int], what: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = own.add_parser(name, help=what)
    place = "folder or s3://bucket/prefix of the lake"
    parser.add_argument("--lake", type=given_uri, required=True, metavar="URI", help=place)
    parser.set_defaults(run=run)
    return parser


def _days(text: str) -> float:
    """Read a number of days."""
    value = finite_float(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be 0 or more, not {value:g}")
    return value


def _sql(options: argparse.Namespace) -> int:
    """Answer the question."""
    from dgasr.commands.output import write_whole
    from dgasr.lake.query import run_sql

    if options.query is None and sys.stdin.isatty():
        raise ConfigError(
            "sql: no question. Give one, or talk to the lake in DuckDB's own shell: "
            f"`dgasr lake attach --lake {options.lake} > lake.sql; duckdb -init lake.sql`."
        )
    question = sys.stdin.read() if options.query is None else options.query
    where = question, options.lake, options.format
    answer = partial(run_sql, *where, preferred_recipe=options.recipe, allow_writes=options.allow_writes)
    if options.out is None:
        answer(sys.stdout)
        return 0
    try:
        write_whole(Path(options.out), answer)
    except OSError as error:
        raise ConfigError(f"--out {options.out}: cannot be written ({error}). Give another file.") from error
    return 0


def _check(options: argparse.Namespace) -> int:
    """Write what is wrong; 1 where anything is."""
    from dgasr.lake.check import check_lake

    found = check_lake(options.lake, is_deep=options.deep)
    for severity in ("fault", "note"):
        lines = [finding.line() for finding in found.findings if finding.severity == severity]
        _write_some(lines, len(lines) if options.all else SHOWN)
    sys.stdout.write(found.line() + "\n")
    return 1 if found.num_faults else 0


def _compact(options: argparse.Namespace) -> int:
    """Merge files."""
    from dgasr.lake.upkeep import compact

    sys.stdout.write(compact(options.lake).line() + "\n")
    return 0


def _attach(options: argparse.Namespace) -> int:
    """Write the script."""
    from dgasr.lake.views import attach_script

    endpoint_url = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    sys.stdout.write(attach_script(options.lake, endpoint_url))
    return 0


def _files(options: argparse.Namespace) -> int:
    """Write one file a line."""
    from dgasr.lake.views import part_uris

    sys.stdout.writelines(f"{uri}\n" for uri in part_uris(options.lake, options.table))
    return 0


def _vacuum(options: argparse.Namespace) -> int:
    """Write what would go, or remove it."""
    from dgasr.lake.upkeep import GRACE_S, vacuum

    grace_s = GRACE_S if options.grace_days is None else options.grace_days * 24 * 3600
    done = vacuum(options.lake, grace_s, is_dry_run=not options.yes)
    if not options.yes:
        _write_some([*done.unused, *done.staged], SHOWN)
    sys.stdout.write(done.line() + ("" if options.yes else "; add --yes to do it") + "\n")
    return 0


def _forget(options: argparse.Namespace) -> int:
    """Take a partition out, or say what that would do."""
    from dgasr.lake.upkeep import forget_partition

    if not options.yes:
        raise ConfigError(
            f"{options.partition}: would be removed with all its rows, and transcribed anew by the next run. "
            "Let no run write to this recipe meanwhile, and add --yes."
        )
    gone = f"{forget_partition(options.lake, options.partition)} files of {options.partition} were taken out"
    sys.stdout.write(f"{gone}; `dgasr lake check` says what else is wrong\n")
    return 0


def _write_some(lines: list[str], limit: int) -> None:
    """Write the first lines, and how many more there are."""
    sys.stdout.writelines(f"{printable(line)}\n" for line in lines[:limit])
    if len(lines) > limit:
        sys.stdout.write(f"… and {len(lines) - limit} more\n")
