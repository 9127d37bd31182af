"""`dgasr model`: what a model is made of, its card, its way to others, and a page for it."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from dgasr.commands.arguments import check_output_file, names
from dgasr.commands.probe import figures_text, probe
from dgasr.commands.serve import step_counts
from dgasr.errors import ConfigError
from dgasr.model.presets import full


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its flags."""
    parser = commands.add_parser("model", help="look into a model, write its card, publish it, make a Space")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    about = "say what a model or an adapter is made of and takes; loads no model's weights"
    add = actions.add_parser("probe", help=about).add_argument
    source = "a model, or an adapter as `--adapter` takes it"
    add("source", metavar="base|tiny|full|DIR|FILE.pt|HUB_ID", help=source)
    add("--model", default="full", metavar="base|tiny|full|DIR", help="that an adapter is for (default: full)")
    add("--json", type=Path, metavar="FILE", help="also write it here (default: none)")
    add = actions.add_parser("card", help="write README.md beside the weights of a training run").add_argument
    add("folder", type=Path, metavar="DIR", help="`final` or `best` of a run")
    add("--name", required=True, help="of the model, as it will be published")
    add("--licence", required=True, metavar="ID", help="SPDX identifier, or `other`")
    add("--data", type=_licence, action="append", default=[], metavar="SET=LICENCE", help="of each set")
    add("--figures", type=Path, nargs="+", default=(), metavar="FILE", help="of `dgasr evaluate --json`")
    add = actions.add_parser("publish", help="check a folder with its card, and copy or upload it").add_argument
    add("folder", type=Path, metavar="DIR", help="`final` or `best` of a run, with its card")
    add("--to", required=True, metavar="hf:OWNER/NAME|FOLDER", help="a Hub repository, or a new folder")
    space = actions.add_parser("space", help="write the page of `dgasr serve --page` as a Hugging Face Space")
    work = space.add_mutually_exclusive_group(required=True).add_argument
    work("endpoint", nargs="?", metavar="URL", help="of `dgasr serve`, which does the work")
    work("--model", metavar="base|tiny|DIR", help="that the Space runs itself (default: none)")
    add = space.add_argument
    add("--adapter", type=Path, metavar="FILE.pt|DIR", help="to put on --model; goes along")
    add("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    add("--language", type=names, default=("en",), metavar="CODE,…", help="of URL, to choose from (default: en)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Do what was asked for, and say where it is."""
    from dgasr.publishing import publish, write_card

    if options.action == "probe":
        check_output_file("--json", options.json)
        figures = probe(options.source, options.model)
        sys.stdout.write(figures_text(figures))
        if options.json:
            options.json.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
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
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return f"commit {subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()}"
    except (OSError, subprocess.CalledProcessError):
        return ""


def _space(options: argparse.Namespace) -> None:
    from dgasr.model.identity import identify, model_folder
    from dgasr.publishing import write_own_space, write_space

    if options.model is None:
        if options.adapter:
            raise ConfigError("--adapter: goes on a model. Give --model, or leave it out.")
        write_space(options.endpoint, options.out, options.language, step_counts(full().max_steps))
        return
    if options.adapter and not options.adapter.exists():
        raise ConfigError(f"--adapter {options.adapter}: not there, and the Space is to hold it. Bring it here first.")
    config, _ = identify(options.model, str(options.adapter) if options.adapter else None)
    if config.pretrained:
        raise ConfigError(f"--model {options.model}: its weights are not in its folder. Serve it, and give the URL.")
    write_own_space(model_folder(options.model), options.adapter, options.out)
