"""`dgasr adapter`: say what is in an adapter, bring a published one into a folder, write one in the published form."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dgasr.commands.arguments import finite_float
from dgasr.errors import ConfigError

if TYPE_CHECKING:
    from dgasr.model.presets import AsrConfig
    from dgasr.model.stored_adapter import StoredAdapter
    from dgasr.model.stored_layout import Linears


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its flags."""
    parser = commands.add_parser("adapter", help="look into adapters, import and export them")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    about = {
        "inspect": "say how an adapter is built and whether it fits the model",
        "import": "write an adapter as a folder that PEFT and this project read",
        "export": "write an adapter as one file, as the reference publishes it",
    }
    for name, what in about.items():
        action = actions.add_parser(name, help=what)
        action.add_argument("source", metavar="FILE|DIR|HUB_ID", help="projector and LoRA")
        action.add_argument("--model", default="full", metavar="tiny|full|DIR", help="it is for (default: full)")
        action.add_argument(
            "--scale",
            type=finite_float,
            metavar="S",
            help="LoRA's alpha / rank where a file has none (default: the model's)",
        )
        if name != "inspect":
            action.add_argument("--out", type=Path, required=True, metavar="DIR" if name == "import" else "FILE.pt")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Read, and write where asked."""
    from dgasr.model.stored_adapter import read_adapter, write_file, write_folder

    if options.action != "inspect" and options.out.exists():
        raise ConfigError(f"--out {options.out}: is there already. Name another, or remove it.")
    config, linears = _shapes(options.model)
    scale = config.lora.scale if options.scale is None else options.scale
    stored = read_adapter(options.source, config, linears, scale)
    _check_projector(options.source, stored, config)
    sys.stdout.write(_description(options.source, stored, config))
    if options.action == "import":
        write_folder(stored, options.out)
    elif options.action == "export":
        write_file(stored, options.out)
    return 0


def _shapes(model: str) -> "tuple[AsrConfig, Linears]":
    """Sizes and linear layers of a model, without its weights."""
    import torch

    from dgasr.model.adapter import linear_layers
    from dgasr.model.asr import AsrModel
    from dgasr.model.identity import read_config

    config = read_config(model)
    with torch.device("meta"):
        return config, linear_layers(AsrModel(config))


def _check_projector(source: str, stored: "StoredAdapter", config: "AsrConfig") -> None:
    """Refuse what would be refused when it is loaded."""
    import torch

    from dgasr.model.projector import Projector

    with torch.device("meta"):
        wanted = Projector(stored.layout, config.encoder["d_model"], config.backbone["hidden_size"]).state_dict()
    differing = sorted(wanted.keys() ^ stored.projector.keys()) or sorted(
        name for name, tensor in wanted.items() if tensor.shape != stored.projector[name].shape
    )
    if differing:
        raise ConfigError(f"--adapter {source}: {', '.join(differing)} do not fit model {config.name}. Give --model.")


def _description(source: str, stored: "StoredAdapter", config: "AsrConfig") -> str:
    layout, settings = stored.layout, stored.settings
    widths = layout.widths(config.encoder["d_model"], config.backbone["hidden_size"])
    chain = " → ".join(str(widths[place]) for place in ("input", *layout.layers))
    shortening = f"{len(layout.channels)} convolutions of {layout.kernel_size}" if layout.channels else ""
    stacking = f"{layout.stack} frames stacked" if layout.stack > 1 else ""
    norms = ", ".join(layout.norms) or "no norms"
    layers = sorted({name.rpartition(".lora_")[0] for name in stored.lora})
    sides = " and ".join(side for side in ("encoder", "decoder") if any(f".{side}." in name for name in layers))
    targets = ", ".join(sorted({name.rpartition(".")[2] for name in layers}))
    is_assumed = stored.found is not None and not stored.found.alphas
    alpha = f"alpha {settings.lora_alpha}" + (" (taken: the file has none)" if is_assumed else "")
    other = f", {len(settings.rank_pattern)} layers of another rank" if settings.rank_pattern else ""
    sizes = [sum(tensor.numel() for tensor in part.values()) for part in (stored.projector, stored.lora)]
    lines = [
        f"{source}: {sum(sizes):,} parameters; fits model {config.name}",
        f"projector  {sizes[0]:>11,}  {' and '.join(filter(None, (shortening, stacking)))}, {chain}, {norms}; "
        f"{layout.subsampling} frames per embedding",
        f"lora       {sizes[1]:>11,}  rank {settings.r}, {alpha}{other}; {targets} of {sides}, {len(layers)} layers",
    ]
    if stored.found is not None:
        lines.append("no file tells stride, padding and activation: taken as 2, half the kernel, GELU")
    return "\n".join(lines) + "\n"
