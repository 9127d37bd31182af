"""`dgasr model`: what a model is made of, its card, its way to others, and a page for it."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgasr.commands.arguments import DEFAULTS, check_output_file, names
from dgasr.commands.serve import STEP_COUNTS

if TYPE_CHECKING:
    from dgasr.model.presets import AsrConfig

BATCHES = (1, 4, 16, 64)
"""Segments at once that memory is told for."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its flags."""
    parser = commands.add_parser("model", help="look into a model, write its card, publish it, make a Space")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    probe = actions.add_parser("probe", help="say what a model is made of and what it takes; loads no weights")
    probe.add_argument(
        "source", metavar="base|tiny|full|DIR", help="preset or folder (adapters: `dgasr adapter inspect`)"
    )
    probe.add_argument("--json", type=Path, metavar="FILE", help="also write it here")
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
    space.add_argument("endpoint", metavar="URL", help="of `dgasr serve`, which does the work")
    space.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    space.add_argument("--language", type=names, default=("en",), metavar="CODE,…", help="to choose from (default: en)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Do what was asked for, and say where it is."""
    from dgasr.publishing import publish, write_card
    from dgasr.serving.space import write_space

    if options.action == "probe":
        _probe(options)
    elif options.action == "card":
        licences, commit = dict(options.data), _commit()
        card = write_card(options.folder, options.name, options.licence, licences, options.figures, commit)
        sys.stdout.write(f"{card}: written. Read it before you publish.\n")
    elif options.action == "space":
        write_space(options.endpoint, options.out, options.language, STEP_COUNTS, DEFAULTS.max_steps)
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


def _probe(options: argparse.Namespace) -> None:
    from dgasr.model.identity import identify, read_config

    check_output_file("--json", options.json)
    config = read_config(options.source)
    figures = _figures(config)
    figures["digest"] = "" if config.pretrained else identify(options.source)[1].digest
    for name, value in figures.items():
        shown = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
        sys.stdout.write(f"{name:<18} {shown}\n")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _figures(config: "AsrConfig") -> dict[str, Any]:
    """Count what a configuration builds, without weights."""
    import torch

    from dgasr.model.asr import AsrModel
    from dgasr.model.checkpoint import unique_tensors
    from dgasr.model.presets import ModelIdentity
    from dgasr.recipe import build_recipe
    from dgasr.transcriber.memory import peak_bytes

    with torch.device("meta"):
        tensors = unique_tensors(AsrModel(config))
    parts = {
        part: sum(tensor.numel() for name, tensor in tensors.items() if name.startswith(part + "."))
        for part in ("encoder", "projector", "backbone")
    }
    recipe = build_recipe(config, ModelIdentity(name=config.name, digest=""))
    backbone, width = config.backbone, 2 if config.pretrained else 4
    figures: dict[str, Any] = {
        "name": config.name,
        "languages": ", ".join(config.languages),
        "parameters": {**parts, "all": sum(parts.values())},
        "frozen parts": config.pretrained or "none: all weights lie in the folder",
        "encoder": f"Whisper, {config.encoder['encoder_layers']} layers of {config.encoder['d_model']}, "
        f"windows of {config.window_samples / 16_000:g} s",
        "projector": f"{config.num_audio_tokens} audio tokens a window, each of {config.projector.subsampling} frames",
        "backbone": f"{backbone['num_hidden_layers']} layers of {backbone['hidden_size']}, "
        f"{backbone['num_experts']} experts, vocabulary {backbone['vocab_size']:,}",
        "canvas buckets": list(config.canvas.buckets),
        "LoRA": f"rank {config.lora.rank}, scale {config.lora.scale:g}, on q, k, v, o",
        "weights GB": round(width * sum(parts.values()) / 1e9, 2),
        "beside them GB": {str(rows): round(peak_bytes(config, recipe, rows, width) / 1e9, 2) for rows in BATCHES},
    }
    if torch.cuda.is_available():
        free = torch.cuda.mem_get_info()[0] / 1e9
        fits = [rows for rows in BATCHES if figures["weights GB"] + figures["beside them GB"][str(rows)] < 0.8 * free]
        figures["this GPU"] = (
            f"{free:.0f} GB free: {max(fits)} segments at once" if fits else f"{free:.0f} GB: too small"
        )
    return figures
