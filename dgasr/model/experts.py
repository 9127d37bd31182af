"""Experts whose shapes do not depend on routing: every expert sees every token, and the unchosen ones weigh nothing.

transformers' `grouped_mm` and `eager` hand each expert only its tokens; a matrix product of one to three rows sums in
another order than one of more (measured on x86, one thread), so a segment's bits would depend on its batch. Right for a
handful of experts; with 128 it would cost 16 times the work.
"""

from typing import Any

from torch import Tensor
from transformers import DiffusionGemmaForBlockDiffusion
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

EVERY_EXPERT = "every_expert"
"""Name to pass to `set_experts_implementation`."""

EVERY_EXPERT_LIMIT = 8
"""Experts up to which every expert sees every token: bits that do not depend on the batch, for little work."""


def choose_experts(backbone: DiffusionGemmaForBlockDiffusion) -> None:
    """Let every expert see every token where they are few, in place."""
    if backbone.config.get_text_config().num_experts <= EVERY_EXPERT_LIMIT:
        backbone.set_experts_implementation(EVERY_EXPERT)


def run_every_expert(experts: Any, hidden: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """Run all experts on all tokens and add up the chosen ones.

    Args:
        experts: transformers' module with `gate_up_proj` [experts, 2 x inner, hidden] and `down_proj` [experts, hidden,
            inner].
        hidden: [tokens, hidden]
        top_k_index: chosen experts.  [tokens, k]
        top_k_weights: their shares.  [tokens, k]

    Returns:
        [tokens, hidden]
    """
    shares = hidden.new_zeros(hidden.shape[0], experts.num_experts)
    shares = shares.scatter(1, top_k_index, top_k_weights.to(hidden.dtype))  # [tokens, experts]
    everywhere = hidden.expand(experts.num_experts, -1, -1)  # matmul would choose its order by who needs a gradient
    inner = experts._apply_gate(everywhere.bmm(experts.gate_up_proj.transpose(1, 2)))  # [experts, tokens, inner]
    outputs = inner.bmm(experts.down_proj.transpose(1, 2))  # [experts, tokens, hidden]
    return (outputs * shares.t().unsqueeze(-1)).sum(dim=0)


ALL_EXPERTS_FUNCTIONS.register(EVERY_EXPERT, run_every_expert)
