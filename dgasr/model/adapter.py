"""What training adds to a frozen model: LoRA on the backbone's attention, and the projector. Put on, saved, loaded.

Knows no training, and no file: `stored_adapter.py` does.
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.utils.save_and_load import get_peft_model_state_dict
from torch import Tensor, nn

from dgasr.errors import ConfigError
from dgasr.model.asr import AsrModel
from dgasr.model.identity import adapted, adapter_files
from dgasr.model.presets import LoraSize
from dgasr.model.projector import Projector
from dgasr.model.stored_adapter import PEFT_PREFIX, StoredAdapter, read_adapter, write_folder
from dgasr.model.stored_layout import Linears

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
