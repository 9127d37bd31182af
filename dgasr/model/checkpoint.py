"""Model folders: `config.json`, `model.safetensors`, `tokenizer.json`. Written whole, read strictly.

Tied tensors are stored once, under their first name; every tensor in the file must be used and every one needed must
be in the file.
"""

import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dgasr.errors import ConfigError, IntegrityError
from dgasr.model.asr import AsrModel
from dgasr.model.identity import CONFIG_FILE, WEIGHTS_FILE, folder_digest
from dgasr.model.presets import AsrConfig, ModelIdentity
from dgasr.prompt import Tokenizer


def unique_tensors(model: AsrModel) -> dict[str, Tensor]:
    """Name every parameter and persistent buffer once, tied ones by their first name."""
    seen: dict[int, str] = {}
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if seen.setdefault(id(tensor), name) == name:
            tensors[name] = tensor
    return tensors


def save_model(model: AsrModel, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write config and weights; the tokenizer is copied by whoever has it.

    Args:
        model: what to store.
        folder: created if missing. Each file is replaced atomically.
        dtype: type of the stored floating-point weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save(folder / CONFIG_FILE)
    tensors = {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
        for name, tensor in unique_tensors(model).items()
    }
    partial = folder / (WEIGHTS_FILE + ".partial")
    save_file(tensors, partial)
    os.replace(partial, folder / WEIGHTS_FILE)


def load_weights(model: AsrModel, path: Path) -> None:
    """Copy a file's tensors into a model of the same configuration, in the model's own dtype.

    Raises:
        ConfigError: the file is missing or is not safetensors.
        IntegrityError: names or shapes of file and model differ; nothing is copied then.
    """
    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path}: no readable weights ({error}). Give a folder written by `dgasr train`.") from error
    wanted = unique_tensors(model)
    missing, unused = sorted(wanted.keys() - stored.keys()), sorted(stored.keys() - wanted.keys())
    other = [name for name in wanted.keys() & stored.keys() if wanted[name].shape != stored[name].shape]
    if missing or unused or other:
        raise IntegrityError(
            f"{path} does not fit its config.json: missing {missing[:3]}, unused {unused[:3]}, other shape "
            f"{sorted(other)[:3]} (of {len(missing)}, {len(unused)}, {len(other)}). Take both from one training."
        )
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(stored[name])


def load_model(folder: Path) -> AsrModel:
    """Build a model from a folder, in float32 on the CPU, ready for inference."""
    config = AsrConfig.load(folder / CONFIG_FILE)
    identity = ModelIdentity(name=config.name, digest=folder_digest(folder))
    model = AsrModel(config, Tokenizer.load(folder), identity)
    load_weights(model, folder / WEIGHTS_FILE)
    return model.eval().requires_grad_(False)
