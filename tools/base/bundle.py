"""A model in, the files that are bundled out: matrices in 8 bits, a file for each part of the model and for updates.

A part that stays as it was adds nothing to a repository's history. `dgasr.model.checkpoint` reads them.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from dgasr.model.asr import AsrModel
from dgasr.model.checkpoint import LEFT, RIGHT, SCALES, replacing, unique_tensors
from dgasr.model.identity import CONFIG_FILE, PART_FILES, PUNCTUATION_FILE, UPDATE_FILE
from dgasr.model.punctuation import PunctuationNetwork


def save_bundle(model: AsrModel, folder: Path, coarse: tuple[str, ...] = ()) -> None:
    """Write config and weights: matrices in 8 bits with a scale for each row, the rest in float32.

    Args:
        model: what to store.
        folder: created if missing.
        coarse: beginnings of names whose matrices use 7 of the 8 bits: an eighth less in a compressed history.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save(folder / CONFIG_FILE)
    tensors: dict[str, Tensor] = {}
    for name, tensor in unique_tensors(model).items():
        tensors |= _stored(name, tensor.detach().cpu(), 63 if name.startswith(coarse) else 127)
    for part, file in PART_FILES.items():
        with replacing(folder / file) as partial:
            save_file({name: tensor for name, tensor in tensors.items() if name.startswith(part)}, partial)


def save_update(factors: Mapping[str, tuple[Tensor, Tensor]], folder: Path) -> None:
    """Write low-rank updates of a bundle's matrices, in 8 bits; loading the folder adds them.

    Args:
        factors: by a matrix's name, [outputs, rank] and [rank, inputs].
        folder: of the bundle; its updates are replaced.
    """
    tensors: dict[str, Tensor] = {}
    for name, pair in factors.items():
        for side, factor in zip((LEFT, RIGHT), pair, strict=True):
            tensors |= _stored(name + side, factor.detach(), 127)
    with replacing(folder / UPDATE_FILE) as partial:
        save_file(tensors, partial)


def save_punctuation(network: PunctuationNetwork, folder: Path) -> None:
    """Write what puts capitals and punctuation into a bundle, in 8 bits."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        tensors |= _stored(name, tensor, 127)
    with replacing(folder / PUNCTUATION_FILE) as partial:
        save_file(tensors, partial)


def _stored(name: str, tensor: Tensor, levels: int) -> dict[str, Tensor]:
    if not tensor.is_floating_point() or tensor.dim() < 2:
        return {name: tensor.contiguous()}
    rows = tensor.float().flatten(1)
    scales = (rows.abs().amax(dim=1) / levels).clamp(min=torch.finfo(torch.float32).tiny)  # [rows]
    narrow = (rows / scales[:, None]).round().to(torch.int8)
    return {name: narrow.view(tensor.shape).contiguous(), name + SCALES: scales}
