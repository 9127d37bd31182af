"""Modules without weights, and weights put into them one tensor at a time: never a second copy on host or device.

transformers' constructor allocates DiffusionGemma's encoder and decoder, twice 26 billion parameters, before it ties
them. Here modules are built on the meta device, where tied parameters are one, and each is given its storage once.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion, WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from dgasr.model.backbone import drop_vision_tower
from dgasr.model.experts import choose_experts


def backbone_skeleton(config: DiffusionGemmaConfig, device: torch.device) -> DiffusionGemmaForBlockDiffusion:
    """Build DiffusionGemma without vision tower and weights; buffers that no checkpoint stores hold their values.

    Args:
        config: of the checkpoint.
        device: where the buffers are.
    """
    with torch.device("meta"):
        backbone = DiffusionGemmaForBlockDiffusion(config)
    drop_vision_tower(backbone)
    choose_experts(backbone)
    for module in backbone.modules():
        computed = dict(module.named_buffers(recurse=False))
        for name, buffer in computed.items():
            module.register_buffer(
                name, torch.empty_like(buffer, device=device), persistent=name not in module._non_persistent_buffers_set
            )
        if computed:
            backbone._init_weights(module)
    return backbone.eval().requires_grad_(False)


def encoder_skeleton(config: WhisperConfig) -> WhisperEncoder:
    """Build Whisper's encoder without weights."""
    with torch.device("meta"):
        encoder = WhisperEncoder(config)
    return encoder.eval().requires_grad_(False)


class Slots:
    """The tensors of a module by name, tied ones together; each is filled once.

    Args:
        module: with parameters on the meta device.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._tensors: dict[str, Tensor] = module.state_dict(keep_vars=True)
        self._names: dict[int, list[str]] = {}
        for name, tensor in self._tensors.items():
            self._names.setdefault(id(tensor), []).append(name)
        self._filled: set[int] = set()

    @property
    def unfilled(self) -> list[str]:
        """First names of what has no values yet."""
        return [names[0] for key, names in self._names.items() if key not in self._filled]

    def shape_of(self, name: str) -> tuple[int, ...] | None:
        """Shape that is wanted, `None` for a name that is not there."""
        tensor = self._tensors.get(name)
        return None if tensor is None else tuple(tensor.shape)

    def value_of(self, name: str) -> Tensor | None:
        """What a slot, or one tied to it, has been filled with."""
        return self._attribute(name) if id(self._tensors[name]) in self._filled else None

    def fill(self, name: str, value: Tensor) -> None:
        """Give a slot, and all that are tied to it, a value; no copy is made."""
        wanted = self._tensors[name]
        is_parameter = isinstance(wanted, nn.Parameter)
        stored = nn.Parameter(value, requires_grad=False) if is_parameter else value
        for tied in self._names[id(wanted)]:
            path, _, attribute = tied.rpartition(".")
            setattr(self._module.get_submodule(path), attribute, stored)
        self._filled.add(id(wanted))

    def _attribute(self, name: str) -> Tensor:
        path, _, attribute = name.rpartition(".")
        value: Any = getattr(self._module.get_submodule(path), attribute)
        assert isinstance(value, Tensor)
        return value


def draw_weights(module: nn.Module, dtype: torch.dtype, device: torch.device, seed: int) -> None:
    """Fill a skeleton with random weights that keep values in range: norms and scales 1, biases 0, the rest normal.

    Args:
        module: with parameters on the meta device.
        dtype: of the weights.
        device: where they are drawn and stay.
        seed: of the draw; depends on the device's generator.
    """
    slots, generator = Slots(module), torch.Generator(device).manual_seed(seed)
    for name in slots.unfilled:
        shape = slots.shape_of(name)
        assert shape is not None
        value = torch.empty(shape, dtype=dtype, device=device)
        if name.endswith("bias"):
            value.zero_()
        elif len(shape) < 2:
            value.fill_(1)
        else:
            value.normal_(
                0.0, 1 / math.sqrt(math.prod(shape[1:]) if len(shape) == 2 else shape[-1]), generator=generator
            )
        slots.fill(name, value)
