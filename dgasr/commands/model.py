"""`dgasr model`: what a model or an adapter is made of, a model's card, its way to others, and a page for it.

A probe builds no more than shapes of a model.
"""

import argparse
import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgasr.commands.arguments import check_output_file, names
from dgasr.commands.serve import step_counts
from dgasr.errors import ConfigError
from dgasr.model.presets import full
from dgasr.records import seconds


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


if TYPE_CHECKING:
    from torch import Tensor

    from dgasr.model.adapter import StoredAdapter
    from dgasr.model.presets import AsrConfig

BATCHES = (1, 4, 16, 64)
"""Segments at once that memory is told for."""

Figures = dict[str, Any]
"""Name → number, text, list or table, in the order to be shown."""


def probe(source: str, model: str) -> Figures:
    """Say what a model, or an adapter for a model, is made of.

    `source` is `base`, `tiny`, `full` or a model folder; or an adapter folder, Hub id of one, or `.pt` file.

    Raises:
        ConfigError: there is neither, or it does not fit.
    """
    from dgasr.model.identity import BUNDLED, CONFIG_FILE, read_config

    if source in (*BUNDLED, "full") or (Path(source) / CONFIG_FILE).is_file():
        return model_figures(source, read_config(source))
    return adapter_figures(source, *read_stored(source, model, None))


def figures_text(figures: Figures) -> str:
    """Lay figures out for people, tables last."""
    shown = "".join(
        f"{name:<18} {json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value}\n"
        for name, value in figures.items()
        if name != "tensors"
    )
    return shown + "".join(f"{own['count']:>5} x {own['name']} {own['shape']}\n" for own in figures.get("tensors", ()))


def model_figures(source: str, config: "AsrConfig") -> Figures:
    """Count what a model's configuration builds, without weights."""
    import torch

    from dgasr.model.adapter import TARGETS, linear_layers
    from dgasr.model.asr import AsrModel
    from dgasr.model.checkpoint import unique_tensors
    from dgasr.model.identity import PART_FILES, identify

    with torch.device("meta"):
        model = AsrModel(config)
    tensors = unique_tensors(model)
    parts = dict.fromkeys(PART_FILES, 0)
    for name, own in tensors.items():
        part = name.partition(".")[0]
        parts[part] += own.numel() if isinstance(own, torch.nn.Parameter) else 0
    targets = [sum(shape) for name, shape in linear_layers(model).items() if re.fullmatch(TARGETS, name)]
    trained = {"projector": parts["projector"], "LoRA": config.lora.rank * sum(targets)}
    total, width = sum(parts.values()), 2 if config.pretrained else 4
    encoder, backbone = config.encoder, config.backbone
    return {
        "name": config.name,
        "digest": "" if config.pretrained else identify(source)[1].digest,
        "languages": ", ".join(config.languages),
        "parameters": {**parts, "all": total},
        "trained": {**trained, "share": round(sum(trained.values()) / total, 4)},
        "frozen": config.pretrained or "none: all weights lie in the folder",
        "encoder": f"Whisper, {encoder['encoder_layers']} layers of {encoder['d_model']}, "
        f"windows of {seconds(config.window_samples):g} s",
        "projector": f"{config.num_audio_tokens} audio tokens a window, each of {config.projector.subsampling} frames",
        "backbone": f"{backbone['num_hidden_layers']} layers of {backbone['hidden_size']}, "
        f"{backbone['num_experts']} experts, vocabulary {backbone['vocab_size']:,}",
        "LoRA": f"rank {config.lora.rank}, scale {config.lora.scale:g}, on q, k, v, o: {len(targets)} layers",
        **_memory(config, round(width * total / 1e9, 2), width),
        "tensors": tensor_table(tensors),
    }


def _memory(config: "AsrConfig", weights_gb: float, width: int) -> Figures:
    """Tell what decoding takes beside the weights, by canvas and segments at once; and what of it this GPU holds."""
    import torch

    from dgasr.model.presets import ModelIdentity
    from dgasr.recipe import build_recipe
    from dgasr.transcriber.loading import USABLE_SHARE, peak_bytes

    recipe, buckets = build_recipe(config, ModelIdentity(name=config.name, digest="")), config.canvas.buckets
    beside: dict[str, dict[str, float]] = {}
    for number, canvas in enumerate(buckets, 1):
        smaller = replace(config, canvas=replace(config.canvas, buckets=buckets[:number]))
        beside[f"canvas {canvas}"] = {
            str(rows): round(peak_bytes(smaller, recipe, rows, width) / 1e9, 2) for rows in BATCHES
        }
    figures: Figures = {"weights GB": weights_gb, "beside them GB": beside, "this GPU": "there is none"}
    if torch.cuda.is_available():
        free_gb = torch.cuda.mem_get_info()[0] / 1e9
        fitting = {
            canvas: max((int(rows) for rows, gb in own.items() if weights_gb + gb < USABLE_SHARE * free_gb), default=0)
            for canvas, own in beside.items()
        }
        figures["this GPU"] = {"free GB": round(free_gb, 1), "segments at once": fitting}
    return figures


def tensor_table(tensors: "dict[str, Tensor]") -> list[dict[str, Any]]:
    """List tensors once for all layers that have them alike; `*` stands for a layer's number."""
    alike = Counter((re.sub(r"\.\d+(?=\.)", ".*", name), tuple(tensor.shape)) for name, tensor in tensors.items())
    return [{"name": name, "shape": list(shape), "count": count} for (name, shape), count in alike.items()]


def read_stored(source: str, model: str, scale: float | None) -> "tuple[StoredAdapter, AsrConfig]":
    """Read an adapter (folder, Hub id or `.pt` file), and see that it fits a model.

    `scale` is LoRA's where a `.pt` has none; `None` for the model's.

    Raises:
        ConfigError: there is none, or it does not fit.
    """
    import torch

    from dgasr.model.adapter import linear_layers, read_adapter
    from dgasr.model.asr import AsrModel
    from dgasr.model.identity import read_config
    from dgasr.model.projector import Projector

    config = read_config(model)
    with torch.device("meta"):
        linears = linear_layers(AsrModel(config))
    stored = read_adapter(source, config, linears, config.lora.scale if scale is None else scale)
    with torch.device("meta"):
        wanted = Projector(stored.layout, config.encoder["d_model"], config.backbone["hidden_size"]).state_dict()
    differing = sorted(wanted.keys() ^ stored.projector.keys()) or sorted(
        name for name, tensor in wanted.items() if tensor.shape != stored.projector[name].shape
    )
    if differing:
        raise ConfigError(f"--adapter {source}: {', '.join(differing)} do not fit model {config.name}. Give --model.")
    return stored, config


def adapter_figures(source: str, stored: "StoredAdapter", config: "AsrConfig") -> Figures:
    """Say how an adapter is built, and what its file does not tell."""
    from dgasr.model.identity import adapter_files, files_digest

    layout, settings = stored.layout, stored.settings
    widths = layout.widths(config.encoder["d_model"], config.backbone["hidden_size"])
    chain = " → ".join(str(widths[place]) for place in ("input", *layout.layers))
    shortening = f"{len(layout.channels)} convolutions of {layout.kernel_size}" if layout.channels else ""
    stacking = f"{layout.stack} frames stacked" if layout.stack > 1 else ""
    norms = ", ".join(layout.norms) or "no norms"
    layers = sorted({name.rpartition(".lora_")[0] for name in stored.lora})
    sides = " and ".join(side for side in ("encoder", "decoder") if any(f".{side}." in name for name in layers))
    targets = ", ".join(sorted({name.rpartition(".")[2] for name in layers}))
    has_scale = stored.found is None or bool(stored.found.alphas)
    alpha = f"alpha {settings.lora_alpha}" + ("" if has_scale else " (taken: the file has none)")
    other = f", {len(settings.rank_pattern)} layers of another rank" if settings.rank_pattern else ""
    parts = {name: sum(tensor.numel() for tensor in own.values())
             for name, own in (("projector", stored.projector), ("LoRA", stored.lora))}  # fmt: skip
    untold = [] if stored.found is None else ["stride and padding (taken as 2 and half the kernel)", "activation",
                                              "prompt wording", "CTC blank"]  # fmt: skip
    return {
        "name": source,
        "digest": files_digest(adapter_files(source)),
        "fits": config.name,
        "layout": "a folder as PEFT has it" if stored.found is None else "one file of tensors, projector and LoRA",
        "parameters": {**parts, "all": sum(parts.values())},
        "projector": f"{' and '.join(filter(None, (shortening, stacking)))}, {chain}, {norms}; "
        f"{layout.subsampling} frames per embedding",
        "LoRA": f"rank {settings.r}, {alpha}{other}; {targets} of {sides}, {len(layers)} layers",
        "not told": untold if has_scale else ["LoRA's scale", *untold],
        "tensors": tensor_table(
            {f"projector.{name}": own for name, own in stored.projector.items()}
            | {f"lora.{name}": own for name, own in stored.lora.items()}
        ),
    }
