"""Model folders: `config.json`, weights, `tokenizer.json`. Written whole, read strictly.

Weights lie in `model.safetensors`, or in a file for each part of the model, so that a part that stays as it was adds
nothing to a repository's history; a matrix may have a low-rank update beside it. Tied tensors are stored once, under
their first name; every tensor in the files must be used and every one needed must be there.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dgasr.errors import ConfigError, IntegrityError
from dgasr.model.asr import AsrModel
from dgasr.model.identity import CONFIG_FILE, PUNCTUATION_FILE, WEIGHTS_FILE, folder_digest, weight_files
from dgasr.model.presets import AsrConfig, ModelIdentity
from dgasr.model.punctuation import PunctuationNetwork, Punctuator
from dgasr.prompt import Tokenizer

SCALES = ".scales"
"""After the name of a matrix that is stored in 8 bits: what each of its rows is multiplied by."""

LEFT, RIGHT = ".left", ".right"
"""After the name of a matrix or a convolution's kernel: [outputs, rank] and [rank, inputs], whose product is added."""


def unique_tensors(model: AsrModel) -> dict[str, Tensor]:
    """Name every parameter and persistent buffer once, tied ones by their first name."""
    seen: dict[int, str] = {}
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if seen.setdefault(id(tensor), name) == name:
            tensors[name] = tensor
    return tensors


def save_model(model: AsrModel, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write config and weights, floating-point ones as `dtype`; copying the tokenizer is the caller's work.

    The folder is created if missing; its file of weights, and of punctuation if it has one, are replaced atomically.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save(folder / CONFIG_FILE)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in unique_tensors(model).items()}
    with replacing(folder / WEIGHTS_FILE) as partial:
        save_file({name: own.to(dtype) if own.is_floating_point() else own for name, own in tensors.items()}, partial)
    if model.punctuator:
        with replacing(folder / PUNCTUATION_FILE) as partial:
            save_file(model.punctuator.network.state_dict(), partial)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a file to write, and put it in the place of `path` once it is whole.

    Several processes may do so at once: torchrun's go on where it is killed, beside those of the run started again.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    yield partial
    partial.replace(path)


def load_weights(model: AsrModel, folder: Path) -> None:
    """Copy a folder's tensors into a model of the same configuration, in the model's own dtype.

    ConfigError where a file is missing or is not safetensors; IntegrityError where names or shapes of files and model
    differ: nothing is copied then.
    """
    stored: dict[str, Tensor] = {}
    for path in weight_files(folder):
        stored |= _tensors(path)
    scales, left, right = (_take(stored, suffix) for suffix in (SCALES, LEFT, RIGHT))
    wanted = unique_tensors(model)
    updated = left.keys() | right.keys()
    missing = sorted((wanted.keys() - stored.keys()) | (left.keys() ^ right.keys()))
    unused = sorted((stored.keys() | updated) - wanted.keys())
    other = [name for name in wanted.keys() & stored.keys() if wanted[name].shape != stored[name].shape]
    other += [
        name
        for name in wanted.keys() & left.keys() & right.keys()
        if (len(left[name]), right[name][0].numel()) != (len(wanted[name]), wanted[name][0].numel())
    ]
    if missing or unused or other:
        raise IntegrityError(
            f"{folder}: its weights do not fit its config.json: missing {missing[:3]}, unused {unused[:3]}, other "
            f"shape {sorted(other)[:3]} (of {len(missing)}, {len(unused)}, {len(other)}). Take both from one training."
        )

    def read(name: str, tensor: Tensor) -> Tensor:
        return _widened(tensor, scales.get(name))

    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(read(name, stored[name]))
            if name in updated:
                tensor += (read(name + LEFT, left[name]) @ read(name + RIGHT, right[name])).view(tensor.shape)


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path}: no readable weights ({error}). Give a folder written by `dgasr train`.") from error


def _widened(tensor: Tensor, scales: Tensor | None) -> Tensor:
    """Multiply rows by what they were divided by to fit 8 bits, if they were."""
    return tensor if scales is None else tensor * scales.view(-1, *[1] * (tensor.dim() - 1))


def _take(stored: dict[str, Tensor], suffix: str) -> dict[str, Tensor]:
    """Take out the tensors whose names end so, by what their names begin with."""
    return {name.removesuffix(suffix): stored.pop(name) for name in [name for name in stored if name.endswith(suffix)]}


def load_model(folder: Path) -> AsrModel:
    """Build a model from a folder, in float32 on the CPU, ready for inference."""
    config = AsrConfig.load(folder / CONFIG_FILE)
    identity = ModelIdentity(name=config.name, digest=folder_digest(folder))
    model = AsrModel(config, Tokenizer.load(folder), identity)
    load_weights(model, folder)
    if (folder / PUNCTUATION_FILE).is_file():
        model.punctuator = _load_punctuator(folder / PUNCTUATION_FILE, model)
    return model.eval().requires_grad_(False)


def _load_punctuator(path: Path, model: AsrModel) -> Punctuator:
    """Read what puts capitals and punctuation; IntegrityError where it is of another vocabulary or no such network."""
    stored = _tensors(path)
    scales = _take(stored, SCALES)
    try:
        (num_pieces, width), (_, hidden) = stored["pieces.weight"].shape, stored["context.weight_hh_l0"].shape
        network = PunctuationNetwork(num_pieces, width, hidden)
        network.load_state_dict({name: _widened(tensor, scales.get(name)) for name, tensor in stored.items()})
    except (KeyError, ValueError, RuntimeError) as error:
        raise IntegrityError(
            f"{path}: no punctuation of a model ({error}). Take the folder from one training."
        ) from error
    if num_pieces != len(model.head_weight):
        raise IntegrityError(
            f"{path}: knows {num_pieces} tokens, and the model {len(model.head_weight)}. Take both from one training."
        )
    return Punctuator(network.eval().requires_grad_(False), model.tokenizer)
