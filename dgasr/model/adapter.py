"""What training adds to a frozen model: LoRA on the backbone's attention, and the projector. Put on, saved, loaded.

Adapters are read into one form from a folder or a published `.pt`, and written as either. A folder holds
`adapter_config.json` and `adapter_model.safetensors`, which PEFT loads by itself onto the backbone,
`projector.safetensors` and `projector.json`. A `.pt` holds `{"projector": tensors, "lora": tensors}` under names of
its writer. Knows no training.
"""

import copy
import json
import logging
import pickle
import re
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.utils.save_and_load import get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dgasr.errors import ConfigError
from dgasr.model.asr import AsrModel
from dgasr.model.identity import ADAPTER_FILES, PROJECTOR_CONFIG, adapted, adapter_files, read_projector_config
from dgasr.model.presets import AsrConfig, LoraSize, ProjectorConfig
from dgasr.model.projector import Projector
from dgasr.model.stored_layout import Linears, StoredLora, Tensors, read_lora, read_projector

ADAPTER_CONFIG, ADAPTER_WEIGHTS, PROJECTOR_WEIGHTS = ADAPTER_FILES

PEFT_PREFIX = "base_model.model."
"""What PEFT puts before module names in its files."""

_COPIES = {"encoder": r"encoder\.language_model", "decoder": "decoder"}


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredAdapter:
    """Projector and LoRA, away from any model.

    layout: how the projector is built.
    projector: its tensors, as `Projector` names them.
    settings: LoRA for PEFT.
    lora: its tensors, as PEFT names them, without its prefix.
    found: what LoRA a `.pt` holds; `None` for a folder, which states it in `settings`.
    """

    layout: ProjectorConfig
    projector: Tensors
    settings: LoraConfig
    lora: Tensors
    found: StoredLora | None = None


def read_adapter(source: str, config: AsrConfig, linears: Linears, scale: float) -> StoredAdapter:
    """Read an adapter: a folder, the Hub id of one, or a `.pt` file, for a model of these sizes and linear layers.

    `scale` is what LoRA's update is multiplied by where a `.pt` does not say. ConfigError where there is none, or it
    does not fit the model; code in a pickle is never run.
    """
    files = adapter_files(source)
    try:
        if len(files) > 1:
            return _read_folder(files[0].parent, config)
        return _read_file(files[0], config, linears, scale)
    except ConfigError as error:
        raise ConfigError(f"--adapter {source}: {error}") from error


def write_folder(stored: StoredAdapter, folder: Path) -> None:
    """Write an adapter as this project and PEFT read it."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({PEFT_PREFIX + name: _plain(tensor) for name, tensor in stored.lora.items()}, folder / ADAPTER_WEIGHTS)
    stored.settings.save_pretrained(str(folder))
    save_file({name: _plain(tensor) for name, tensor in stored.projector.items()}, folder / PROJECTOR_WEIGHTS)
    (folder / PROJECTOR_CONFIG).write_text(json.dumps(asdict(stored.layout), indent=2) + "\n", encoding="utf-8")


def with_scale(stored: StoredAdapter, scale: float | None) -> StoredAdapter:
    """Let every layer's update be multiplied by `scale`; `None` leaves what is stated."""
    if scale is None or stored.found is None:
        return stored
    settings = copy.deepcopy(stored.settings)
    settings.lora_alpha = scale * settings.r  # type: ignore[assignment] # PEFT divides either
    settings.alpha_pattern = {name: scale * rank for name, rank in (settings.rank_pattern or {}).items()}
    return replace(stored, settings=settings)


def write_file(stored: StoredAdapter, path: Path) -> None:
    """Write an adapter in the published form; scales that the form has no place for are tensors named `….alpha`."""
    layers = sorted({name.rpartition(".lora_")[0] for name in stored.lora})
    alphas = {f"{layer}.alpha": torch.tensor(float(_alpha_of(stored.settings, layer))) for layer in layers}
    torch.save({"projector": dict(stored.projector), "lora": {**stored.lora, **alphas}}, path)


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().contiguous()


def _alpha_of(settings: LoraConfig, layer: str) -> float:
    patterns = (settings.alpha_pattern or {}).items()
    return next((alpha for name, alpha in patterns if re.fullmatch(rf"(.*\.)?({name})", layer)), settings.lora_alpha)


def _read_folder(folder: Path, config: AsrConfig) -> StoredAdapter:
    try:
        settings = LoraConfig.from_pretrained(str(folder))
        lora, projector = load_file(folder / ADAPTER_WEIGHTS), load_file(folder / PROJECTOR_WEIGHTS)
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise ConfigError(
            f"not an adapter ({error}). It needs {ADAPTER_CONFIG}, {ADAPTER_WEIGHTS} and {PROJECTOR_WEIGHTS}, as "
            "`dgasr train` writes them."
        ) from error
    return StoredAdapter(
        layout=read_projector_config(folder) or config.projector,
        projector=projector,
        settings=settings,
        lora={name.removeprefix(PEFT_PREFIX): tensor for name, tensor in lora.items()},
    )


def _read_file(path: Path, config: AsrConfig, linears: Linears, scale: float) -> StoredAdapter:
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        parts: list[Tensors] = [{**stored[part]} for part in ("projector", "lora")]
        others = sorted({*stored} - {"projector", "lora"}) + sorted(
            name for part in parts for name, tensor in part.items() if not isinstance(tensor, torch.Tensor)
        )
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError, TypeError) as error:
        first_line = str(error).strip().split("\n", 1)[0]
        raise ConfigError(
            f"not an adapter ({type(error).__name__}: {first_line}). The file must hold tensors as "
            '{"projector": …, "lora": …}; code in a pickle is never run.'
        ) from error
    if others:
        raise ConfigError(
            f"{', '.join(map(str, others))} in the file is neither projector nor LoRA. Take it out, or name what it is."
        )
    layout, projector = read_projector(parts[0], config.encoder["d_model"], config.backbone["hidden_size"])
    found = read_lora(parts[1], linears)
    settings = _settings(found, linears, scale)
    return StoredAdapter(layout=layout, projector=projector, settings=settings, lora=found.tensors, found=found)


def _settings(found: StoredLora, linears: Linears, scale: float) -> LoraConfig:
    """Describe LoRA to PEFT: common rank and scale, and what differs from them layer by layer."""
    alphas = {name: found.alphas.get(name, rank * scale) for name, rank in found.ranks.items()}
    alpha = Counter(alphas.values()).most_common(1)[0][0]
    copies = "|".join(_COPIES[side] for side in found.sides)
    pattern = rf"model\.({copies})\.layers\.\d+\.self_attn\.({'|'.join(found.targets)})"
    is_regular = {name for name in linears if re.fullmatch(pattern, name)} == found.ranks.keys()
    return LoraConfig(
        r=found.rank,
        lora_alpha=int(alpha) if alpha == int(alpha) else alpha,  # type: ignore[arg-type] # PEFT divides either
        target_modules=pattern if is_regular else sorted(found.ranks),
        rank_pattern={name: rank for name, rank in found.ranks.items() if rank != found.rank},
        alpha_pattern={name: value for name, value in alphas.items() if value != alpha},
        bias="none",
    )


logger = logging.getLogger(__name__)

TARGETS = r"model\.(encoder\.language_model|decoder)\.layers\.\d+\.self_attn\.[qkvo]_proj"
"""q, k, v and o of both attention copies; layers of full attention have no v."""


def add_lora(model: AsrModel, size: LoraSize) -> None:
    """Put LoRA on the backbone in place; its first output is zero, so nothing changes until it is trained.

    LoRA and projector are float32, whatever the frozen weights are: what multiplies is cast, what learns is not. In
    bfloat16 most of AdamW's updates are smaller than half a unit of the last place, and lost: 79 % of those to LoRA's A
    at a rate of 1e-5, 17 % at 5e-5. ConfigError where the model has LoRA already.
    """
    if has_lora(model):
        raise ConfigError("the model has LoRA already: leave out --lora, or load it without --adapter.")
    _inject(model, LoraConfig(r=size.rank, lora_alpha=size.alpha, target_modules=TARGETS, bias="none"))


def has_lora(model: AsrModel) -> bool:
    """Tell whether LoRA is on the backbone."""
    return any("lora_" in name for name, _ in model.backbone.named_parameters())


def _inject(model: AsrModel, settings: LoraConfig) -> None:
    inject_adapter_in_model(settings, model.backbone)
    for name, parameter in model.named_parameters():
        if "lora_" in name or name.startswith("projector."):
            parameter.data = parameter.data.float()


def linear_layers(model: AsrModel) -> Linears:
    """List the backbone's linear layers that LoRA can be put on: outputs and inputs by name."""
    return {
        name: (module.out_features, module.in_features)
        for name, module in model.backbone.named_modules()
        if isinstance(module, nn.Linear) and ".layers." in name
    }


def save_adapter(model: AsrModel, folder: Path) -> None:
    """Write projector and LoRA; the frozen weights stay where they came from."""
    backbone: Any = model.backbone
    lora = get_peft_model_state_dict(backbone, adapter_name="default")
    write_folder(
        StoredAdapter(
            layout=model.config.projector,
            projector=model.projector.state_dict(),
            settings=backbone.peft_config["default"],
            lora={name.removeprefix(PEFT_PREFIX): tensor for name, tensor in lora.items()},
        ),
        folder,
    )


def load_adapter(model: AsrModel, source: str) -> None:
    """Put a saved projector and LoRA on a model, in float32; the projector takes the layout that was saved.

    They lie in an adapter folder, in the one of a Hub id, or in a `.pt` file as the reference publishes it. ConfigError
    where there is no such adapter, the model has LoRA already, or tensors do not fit it: the message lists which.
    """
    if has_lora(model):
        raise ConfigError(f"--adapter {source}: the model has LoRA already. Load it without.")
    stored = read_adapter(source, model.config, linear_layers(model), model.config.lora.scale)
    config = replace(adapted(model.config, adapter_files(source)), projector=stored.layout)
    if config.projector != model.config.projector:
        weight = model.projector.output.weight
        layout = Projector(stored.layout, config.encoder["d_model"], config.backbone["hidden_size"])
        model.projector = layout.to(weight.device, weight.dtype).train(model.training)
    model.config = config
    if stored.found is not None:
        logger.warning(
            "--adapter %s: a .pt file does not tell %sactivation, prompt wording and CTC blank; they are taken as the "
            "model's. A wrong one gives fluent wrong text: choose them with `dgasr adapter import --clips bundled`.",
            source, "" if stored.found.alphas else "LoRA's scale, ",
        )  # fmt: skip
    if not config.has_blank:
        logger.warning(
            "--adapter %s: its CTC blank is unknown, so no text is rescored and word times are spread evenly.", source
        )
    _inject(model, stored.settings)
    _copy_tensors(stored, model, source)


def copy_adapter(model: AsrModel, source: str) -> None:
    """Copy a saved projector and LoRA into a model with LoRA of the same size; ConfigError where they do not fit."""
    _copy_tensors(read_adapter(source, model.config, linear_layers(model), model.config.lora.scale), model, source)


@torch.no_grad()
def _copy_tensors(stored: StoredAdapter, model: AsrModel, source: str) -> None:
    lora = {name: parameter for name, parameter in model.backbone.named_parameters() if "lora_" in name}
    wanted: dict[str, Tensor] = {name.replace(".default.", "."): parameter for name, parameter in lora.items()}
    wanted |= model.projector.state_dict(keep_vars=True)
    found = stored.lora | stored.projector
    differing = sorted(found.keys() ^ wanted.keys()) or sorted(
        name for name in wanted if wanted[name].shape != found[name].shape
    )
    if differing:
        raise ConfigError(
            f"--adapter {source}: {len(differing)} tensors do not fit this model, among them "
            f"{', '.join(differing[:4])}. Use the model it was trained on."
        )
    for name, tensor in wanted.items():
        tensor.copy_(found[name])


@torch.no_grad()
def merge_lora(model: AsrModel) -> None:
    """Add LoRA into the weights it is on, in place, so that inference multiplies once instead of three times.

    The encoder's and the decoder's attention share their weights and not their LoRA, so each gets a copy of its own:
    2.2 GB more in bfloat16 at the full size. Sums are rounded to the weights' type.
    """
    layers = [(name, layer) for name, layer in model.backbone.named_modules() if isinstance(layer, LoraLayer)]
    for name, layer in layers:
        plain = layer.get_base_layer()
        assert isinstance(plain, nn.Linear)
        lora: Any = layer
        delta = lora.get_delta_weight("default")
        merged = nn.Linear(plain.in_features, plain.out_features, bias=plain.bias is not None, device="meta")
        merged.weight = nn.Parameter((plain.weight.float() + delta.float()).to(plain.weight.dtype), requires_grad=False)
        merged.bias = plain.bias
        parent, _, attribute = name.rpartition(".")
        setattr(model.backbone.get_submodule(parent), attribute, merged)
