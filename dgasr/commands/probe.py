"""What a model or an adapter is made of: names of either in, figures out. Builds no more than shapes of a model."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgasr.errors import ConfigError
from dgasr.records import seconds

if TYPE_CHECKING:
    from torch import Tensor

    from dgasr.model.presets import AsrConfig
    from dgasr.model.stored_adapter import StoredAdapter

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

    from dgasr.model.adapter import linear_layers
    from dgasr.model.asr import AsrModel
    from dgasr.model.identity import read_config
    from dgasr.model.projector import Projector
    from dgasr.model.stored_adapter import read_adapter

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
