"""Weights of 8 bits, one scale a row: half the memory of bfloat16. Knows tensors, not where they came from.

torchao holds the numbers and multiplies by them in linear layers. Experts are widened layer by layer when they are
used, since no grouped product takes them: that costs time, and room for one layer's experts.
"""

from collections import defaultdict
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from dgasr.errors import ConfigError

EXPERTS = ("gate_up_proj", "down_proj")
"""Weights of all experts of a layer together.  [experts, outputs, inputs]"""

KEPT = ("lm_head", "router", "lora_", "self_conditioning")
"""Parts of names of what stays as it is: read for its small differences, or small."""

WIDENED = "_widened"
"""After the name of an implementation of experts: the one that widens them first."""


def quantize(backbone: Any, device: torch.device) -> None:
    """Keep the matrices of attention, dense layers and experts in 8 bits, in place; tied ones stay tied.

    The backbone is frozen, on the host; each matrix goes to the device first, and stays; the rest stays where it is.
    ConfigError where torchao is not installed.
    """
    try:
        torchao = import_module("torchao.quantization")
    except ImportError as error:
        raise ConfigError(
            f"--quantize int8 needs torchao ({error}). Install it by `pip install 'dgasr[int8]'`, or leave it out."
        ) from error
    tied: defaultdict[int, list[str]] = defaultdict(list)
    for name, weight in backbone.named_parameters(remove_duplicate=False):
        if _is_narrowed(backbone, name):
            tied[id(weight)].append(name)
    for names in tied.values():
        # Nothing else holds a weight by now, so each goes as its narrow one comes.
        weight = backbone.get_parameter(names[0]).detach().to(device)
        narrow = torchao.Int8Tensor.from_hp(weight, granularity=torchao.PerRow())
        parameter = nn.Parameter(narrow, requires_grad=False)
        for name in names:
            path, _, attribute = name.rpartition(".")
            setattr(backbone.get_submodule(path), attribute, parameter)
    backbone.set_experts_implementation(_widening(backbone.config.get_text_config()._experts_implementation))


def _is_narrowed(backbone: Any, name: str) -> bool:
    path, _, attribute = name.rpartition(".")
    is_matrix = isinstance(backbone.get_submodule(path), nn.Linear) and attribute == "weight"
    return (is_matrix or attribute in EXPERTS) and not any(part in name for part in KEPT)


def _widening(implementation: str) -> str:
    """Register the implementation that widens experts and then goes on as `implementation`; returns its name."""
    name = implementation + WIDENED
    plain = ALL_EXPERTS_FUNCTIONS[implementation]

    def run(experts: Any, hidden: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        return plain(_Widened(experts), hidden, top_k_index, top_k_weights)

    ALL_EXPERTS_FUNCTIONS.register(name, run)
    return name


class _Widened:
    """Experts with their weights as numbers of the model's type, for one call."""

    def __init__(self, experts: nn.Module) -> None:
        self._experts = experts
        for name in EXPERTS:
            setattr(self, name, getattr(experts, name).dequantize())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._experts, name)
