"""`dgasr model`: what a model is made of, its card, its way to others, and a page for it."""

import argparse
import subprocess
import sys
from pathlib import Path

from dgasr.commands.arguments import DEFAULTS, names
from dgasr.commands.probe import add_arguments, run_probe
from dgasr.commands.serve import STEP_COUNTS
from dgasr.errors import ConfigError


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its flags."""
    parser = commands.add_parser("model", help="look into a model, write its card, publish it, make a Space")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add_arguments(
        actions.add_parser(
            "probe", help="say what a model or an adapter is made of and takes; loads no model's weights"
        )
    )
    card = actions.add_parser("card", help="write README.md beside the weights of a training run")
    card.add_argument("folder", type=Path, metavar="DIR", help="`final` or `best` of a run")
    card.add_argument("--name", required=True, help="of the model, as it will be published")
    card.add_argument("--licence", required=True, metavar="ID", help="SPDX identifier, or `other`")
    card.add_argument("--data", type=_licence, action="append", default=[], metavar="SET=LICENCE", help="of each set")
    card.add_argument(
        "--figures", type=Path, nargs="+", default=(), metavar="FILE", help="of `dgasr evaluate --json`"
    )  # fmt: skip
    publish = actions.add_parser("publish", help="check a folder with its card, and copy or upload it")
    publish.add_argument("folder", type=Path, metavar="DIR", help="`final` or `best` of a run, with its card")
    publish.add_argument(
        "--to", required=True, metavar="hf:OWNER/NAME|FOLDER", help="a Hub repository, or a new folder"
    )
    space = actions.add_parser("space", help="write the page of `dgasr serve --page` as a Hugging Face Space")
    work = space.add_mutually_exclusive_group(required=True)
    work.add_argument("endpoint", nargs="?", metavar="URL", help="of `dgasr serve`, which does the work")
    work.add_argument("--model", metavar="base|tiny|DIR", help="that the Space runs itself (default: none)")
    space.add_argument("--adapter", type=Path, metavar="FILE.pt|DIR", help="to put on --model; goes along")
    space.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    space.add_argument(
        "--language", type=names, default=("en",), metavar="CODE,…", help="of URL, to choose from (default: en)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Do what was asked for, and say where it is."""
    from dgasr.publishing import publish, write_card

    if options.action == "probe":
        run_probe(options)
    elif options.action == "card":
        licences, commit = dict(options.data), _commit()
        card = write_card(options.folder, options.name, options.licence, licences, options.figures, commit)
        sys.stdout.write(f"{card}: written. Read it before you publish.\n")
    elif options.action == "space":
        _space(options)
        sys.stdout.write(f"{options.out}: push it as a Space, or `pip install -r requirements.txt && python app.py`.\n")
    else:
        sys.stdout.write(f"published: {publish(options.folder, options.to)}\n")
    return 0


def _licence(text: str) -> tuple[str, str]:
    name, _, licence = text.partition("=")
    if not name or not licence:
        raise argparse.ArgumentTypeError(f"{text!r}: write SET=LICENCE")
    return name, licence


def _commit() -> str:
    """Name the checkout's commit; nothing where this is no checkout."""
    folder = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=folder, capture_output=True, text=True, check=False
        )
        return f"commit {found.stdout.strip()}" if found.returncode == 0 else ""
    except OSError:
        return ""


def _space(options: argparse.Namespace) -> None:
    from dgasr.model.identity import identify, model_folder
    from dgasr.serving.space import write_own_space, write_space

    if options.model is None:
        if options.adapter:
            raise ConfigError("--adapter: goes on a model. Give --model, or leave it out.")
        write_space(options.endpoint, options.out, options.language, STEP_COUNTS, DEFAULTS.max_steps)
        return
    if options.adapter and not options.adapter.exists():
        raise ConfigError(f"--adapter {options.adapter}: not there, and the Space is to hold it. Bring it here first.")
    config, _ = identify(options.model, str(options.adapter) if options.adapter else None)
    if config.pretrained:
        raise ConfigError(f"--model {options.model}: its weights are not in its folder. Serve it, and give the URL.")
    write_own_space(model_folder(options.model), options.adapter, options.out)
