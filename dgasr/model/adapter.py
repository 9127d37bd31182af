"""What training adds to a frozen model: LoRA on the backbone's attention, and the projector. Put on, saved, loaded.

A folder holds `adapter_config.json` and `adapter_model.safetensors`, which PEFT loads by itself onto the backbone, and
`projector.safetensors`. Knows no training.
"""

import pickle
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.utils.save_and_load import get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dgasr.errors import ConfigError
from dgasr.model.asr import AsrModel
from dgasr.model.identity import ADAPTER_FILES, adapter_files, files_digest
from dgasr.model.presets import LoraSize

ADAPTER_CONFIG, ADAPTER_WEIGHTS, PROJECTOR_WEIGHTS = ADAPTER_FILES

TARGETS = r"model\.(encoder\.language_model|decoder)\.layers\.\d+\.self_attn\.[qkvo]_proj"
"""q, k, v and o of both attention copies; layers of full attention have no v."""

PEFT_PREFIX = "base_model.model."
"""What PEFT puts before module names in its files."""


def add_lora(model: AsrModel, size: LoraSize) -> None:
    """Put LoRA on the backbone in place; its first output is zero, so nothing changes until it is trained.

    Args:
        model: without LoRA so far.
        size: rank and scale.

    Raises:
        ConfigError: the model has LoRA already.
    """
    if has_lora(model):
        raise ConfigError("the model has LoRA already: leave out --lora, or load it without --adapter.")
    config = LoraConfig(r=size.rank, lora_alpha=size.alpha, target_modules=TARGETS, bias="none")
    inject_adapter_in_model(config, model.backbone)


def has_lora(model: AsrModel) -> bool:
    """Tell whether LoRA is on the backbone."""
    return any("lora_" in name for name, _ in model.backbone.named_parameters())


def save_adapter(model: AsrModel, folder: Path) -> None:
    """Write projector and LoRA; the frozen weights stay where they came from."""
    folder.mkdir(parents=True, exist_ok=True)
    lora = get_peft_model_state_dict(model.backbone, adapter_name="default")
    save_file(
        {PEFT_PREFIX + name.removeprefix(PEFT_PREFIX): tensor.cpu().contiguous() for name, tensor in lora.items()},
        folder / ADAPTER_WEIGHTS,
    )
    backbone: Any = model.backbone
    backbone.peft_config["default"].save_pretrained(folder)
    projector = {name: tensor.cpu().contiguous() for name, tensor in model.projector.state_dict().items()}
    save_file(projector, folder / PROJECTOR_WEIGHTS)


def load_adapter(model: AsrModel, source: str) -> str:
    """Put a saved projector and LoRA on a model, in place.

    Args:
        model: without LoRA so far.
        source: adapter folder, the Hub id of one, or a `.pt` file as the reference publishes it:
            `{"projector": state_dict, "lora": state_dict}`, with the tensor names of this project.

    Returns:
        A digest of the adapter's files, 32 hex digits.

    Raises:
        ConfigError: no such adapter, or its tensors do not fit the model; the message lists what does not fit.
    """
    if has_lora(model):
        raise ConfigError(f"--adapter {source}: the model has LoRA already. Load it without.")
    files = adapter_files(source)
    settings, lora, projector = _read_file(model, source) if len(files) == 1 else _read_folder(files[0].parent)
    inject_adapter_in_model(settings, model.backbone)
    wanted = {
        name.replace(".default.", "."): parameter
        for name, parameter in model.backbone.named_parameters()
        if "lora_" in name
    }
    _copy({name.removeprefix(PEFT_PREFIX): tensor for name, tensor in lora.items()}, wanted, source)
    _copy(projector, model.projector.state_dict(keep_vars=True), source)
    return files_digest(files)


Stored = tuple[LoraConfig, dict[str, Tensor], dict[str, Tensor]]
"""LoRA settings, LoRA tensors, projector tensors."""


def _read_folder(folder: Path) -> Stored:
    try:
        settings = LoraConfig.from_pretrained(str(folder))
        return settings, load_file(folder / ADAPTER_WEIGHTS), load_file(folder / PROJECTOR_WEIGHTS)
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise ConfigError(
            f"--adapter {folder}: not an adapter ({error}). It needs {ADAPTER_CONFIG}, {ADAPTER_WEIGHTS} and "
            f"{PROJECTOR_WEIGHTS}, as `dgasr train --lora` writes them."
        ) from error


def _read_file(model: AsrModel, source: str) -> Stored:
    try:
        stored = torch.load(source, map_location="cpu", weights_only=True)
        lora, projector = stored["lora"], stored["projector"]
        rank = next(tensor.shape[0] for name, tensor in lora.items() if "lora_A" in name)
    except (OSError, RuntimeError, pickle.UnpicklingError, KeyError, TypeError, StopIteration) as error:
        raise ConfigError(
            f"--adapter {source}: not an adapter ({type(error).__name__}: {error}). The file must hold tensors as "
            '{"projector": …, "lora": …}; code in a pickle is never run.'
        ) from error
    size = model.config.lora  # the file has no scale; the one of this configuration is taken for its rank
    settings = LoraConfig(r=rank, lora_alpha=rank * size.alpha // size.rank, target_modules=TARGETS, bias="none")
    return settings, lora, projector


def _copy(stored: dict[str, Tensor], wanted: dict[str, Any], source: str) -> None:
    differing = sorted(stored.keys() ^ wanted.keys()) or sorted(
        name for name in wanted if wanted[name].shape != stored[name].shape
    )
    if differing:
        raise ConfigError(
            f"--adapter {source}: {len(differing)} tensors do not fit this model, among them "
            f"{', '.join(differing[:4])}. Use the model it was trained on."
        )
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(stored[name])
