"""Linear layers that multiply integers of 8 bits on a CPU: a quarter of the memory to read, and exact sums.

Weights have a scale for each output, inputs one for each row. Sums of integers do not depend on the order in which they
are made, so a row's result depends on that row alone, however many rows there are.
"""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

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
