"""Make DiffusionGemma's layers train faster on a CPU without changing what they compute (beyond rounding).

transformers' RMSNorm, gated activation and rotary embedding are six to ten elementwise passes each, in float32, there
and back; compiled they are one. With bfloat16 weights beside float32 masters a step of 2,400 prompt and canvas tokens
takes 3.5 s in place of 5.5 s on two cores (docs/experiments.md, 2026-11-29).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.diffusion_gemma import modeling_diffusion_gemma as modeling

from dgasr.device import multiplies_bfloat16

MULTIPLIES_BFLOAT16 = multiplies_bfloat16()
COMPUTE_DTYPE = torch.bfloat16 if MULTIPLIES_BFLOAT16 else torch.float32
"""What training computes in."""

COMPILED_SHAPES = 64
"""Graphs of one function that are kept: norms of different widths, with and without a gradient."""


def compile_elementwise() -> None:
    """Compile what is elementwise in every DiffusionGemma of this process."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, COMPILED_SHAPES)
    scaled, plain = (torch.compile(function, dynamic=True) for function in (_scaled_norm, _norm))
    gate = torch.compile(_gate, dynamic=True)

    def norm(self: modeling.DiffusionGemmaRMSNorm, hidden: Tensor) -> Tensor:
        return scaled(hidden, self.weight, self.eps) if self.with_scale else plain(hidden, self.eps)

    def mlp(self: modeling.DiffusionGemmaText4MLP, hidden: Tensor) -> Tensor:
        return self.down_proj(gate(self.gate_proj(hidden), self.up_proj(hidden)))

    modeling.DiffusionGemmaRMSNorm.forward = norm
    modeling.DiffusionGemmaText4MLP.forward = mlp
    modeling.apply_rotary_pos_emb = torch.compile(modeling.apply_rotary_pos_emb, dynamic=True)


def _norm(hidden: Tensor, eps: float) -> Tensor:
    wide = hidden.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(hidden.dtype)


def _scaled_norm(hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = hidden.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps) * weight).to(hidden.dtype)


def _gate(gate: Tensor, up: Tensor) -> Tensor:
    return F.gelu(gate, approximate="tanh") * up


def cast_parameters(model: nn.Module) -> None:
    """Make parameters COMPUTE_DTYPE, in place, but no buffer: rotary frequencies in bfloat16 are off by radians."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(COMPUTE_DTYPE)


def average_gradients(parameters: Sequence[nn.Parameter], clip_norm: float) -> float:
    """Make gradients the mean over all processes, and clip them, in place; return their norm."""
    if torch.distributed.is_initialized():
        own = [parameter.grad for parameter in parameters if parameter.grad is not None]
        together = nn.utils.parameters_to_vector(own)  # one message in place of hundreds
        torch.distributed.all_reduce(together)
        nn.utils.vector_to_parameters(together / torch.distributed.get_world_size(), own)
    return float(nn.utils.clip_grad_norm_(parameters, clip_norm))


class Masters:
    """Float32 copies of parameters of COMPUTE_DTYPE, which an optimizer changes.

    At the learning rates of fine-tuning most updates are smaller than half a unit of bfloat16's last place and would be
    lost. The parameters that compute keep their type, so that no step casts them.

    Args:
        parameters: those that learn.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._working = list(parameters)
        self.masters = [nn.Parameter(parameter.detach().float()) for parameter in parameters]

    def take_gradients(self, clip_norm: float) -> float:
        """Move the gradients to the masters, the mean over all processes, and clip them; return their norm."""
        for master, working in zip(self.masters, self._working, strict=True):
            master.grad = None if working.grad is None else working.grad.float()
            working.grad = None
        return average_gradients(self.masters, clip_norm)

    @torch.no_grad()
    def publish(self) -> None:
        """Round the masters into the parameters that compute."""
        for master, working in zip(self.masters, self._working, strict=True):
            working.copy_(master)
