"""`dgasr doctor`: what is right and wrong with this machine, and what to do about it."""

import argparse
import sys

from dgasr.errors import ConfigError


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its flags."""
    parser = commands.add_parser("doctor", help="look at versions, devices, model files, S3 and disk")
    parser.add_argument("--s3", metavar="s3://BUCKET/PREFIX", help="also write, read and delete a probe object there")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print one line for each finding; exit code 1 where something cannot work."""
    from dgasr.doctor import examine

    if options.s3 is not None and not options.s3.startswith("s3://"):
        raise ConfigError(f"--s3 {options.s3}: is nothing in S3. Write s3://bucket/prefix.")
    has_failed = False
    for finding in examine(options.s3):
        sys.stdout.write(f"{finding.level:<5} {finding.name:<12} {finding.message}\n")
        if finding.remedy:
            sys.stdout.write(f"      {'':<12} -> {finding.remedy}\n")
        sys.stdout.flush()
        has_failed = has_failed or finding.level == "fail"
    return int(has_failed)
