"""Weights of 8 bits: half of bfloat16's memory on a GPU, products of integers on a CPU. Knows tensors, no checkpoint.

On a GPU (`quantize`) torchao holds the numbers, with one scale a row, and multiplies by them in linear layers. Experts
are widened layer by layer when they are used, since no grouped product takes them: that costs time, and room for one
layer's experts.

On a CPU (`multiply_integers`) linear layers multiply integers: a quarter of the memory to read, and exact sums. Weights
have a scale for each output, inputs one for each row. Sums of integers do not depend on the order in which they are
made, so a row's result depends on that row alone, however many rows there are.
"""

import warnings
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


INPUT_STEPS = 63
"""Steps from zero to a row's largest input. With 7 bits no sum of two products leaves the 16 bits in which processors
without VNNI add them up, so that all processors find the same."""

WEIGHT_STEPS = 127
"""Steps from zero to an output's largest weight."""


def multiplies_integers() -> bool:
    """Tell whether torch has FBGEMM's products of integers here (x86 with AVX2)."""
    return "fbgemm" in torch.backends.quantized.supported_engines


def multiply_integers(module: nn.Module) -> None:
    """Put an `IntegerLinear` in the place of each linear layer of a frozen float32 module on a CPU, in place.

    Tied ones share their weights still; LoRA's own small layers stay as they are.
    """
    packed: dict[int, Any] = {}
    linears = [(name, layer) for name, layer in module.named_modules() if type(layer) is nn.Linear]
    for name, linear in linears:
        if "lora_" not in name:
            key = id(linear.weight)
            if key not in packed:
                packed[key] = _pack(linear.weight.detach())
            module.set_submodule(name, IntegerLinear(linear, packed[key]))


class IntegerLinear(nn.Module):
    """A linear layer of 8-bit weights, packed by `_pack`, with the bias of the one whose place it takes."""

    def __init__(self, linear: nn.Linear, packed: Any) -> None:
        super().__init__()
        self.in_features, self.out_features, self.bias = linear.in_features, linear.out_features, linear.bias
        self._packed = packed

    def forward(self, rows: Tensor) -> Tensor:
        """Multiply; [..., in_features] → [..., out_features]."""
        scale = rows.abs().amax(dim=-1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
        multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
        products: Tensor = multiply(rows / scale, 1 / INPUT_STEPS, INPUT_STEPS + 1, self._packed)
        return products.mul_(scale) if self.bias is None else torch.addcmul(self.bias, products, scale)


def _pack(weight: Tensor) -> Any:
    """Round weights to 8 bits and lay them out for FBGEMM; [out_features, in_features]."""
    scale = weight.abs().amax(dim=1).clamp_min(torch.finfo(weight.dtype).tiny) / WEIGHT_STEPS
    rounded = (weight / scale.unsqueeze(1)).round().to(torch.int8)
    with warnings.catch_warnings():  # torch means to drop tensors of this kind; nothing else packs for FBGEMM yet
        warnings.simplefilter("ignore", UserWarning)
        narrow = torch._make_per_channel_quantized_tensor(rounded, scale.double(), torch.zeros(len(scale)).long(), 0)
        return torch.ops.quantized.linear_prepack(narrow, None)
