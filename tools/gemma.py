"""Gemma 3's sizes and weights, brought into a small DiffusionGemma, which `dgasr.model.backbone.become_gemma3` changes.

DiffusionGemma exists in one size, 26B. A backbone that a laptop runs is made of Gemma 3 270M, which shares vocabulary
and layout with it: the causal encoder then computes exactly what Gemma 3 computes, and the bidirectional decoder starts
from the same weights (tests/model/test_gemma.py, on a miniature with random weights).

Source:
    transformers' `modeling_gemma3` and `modeling_diffusion_gemma`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import DiffusionGemmaForBlockDiffusion, Gemma3ForCausalLM, Gemma3TextConfig

NO_SOFTCAP = 1e4
"""Bound of the logits where a checkpoint has none: DiffusionGemma always caps; so far out it changes nothing."""

_LINEARS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
            "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")  # fmt: skip
_NORMS = ("self_attn.q_norm", "self_attn.k_norm", "input_layernorm", "post_attention_layernorm",
          "pre_feedforward_layernorm", "post_feedforward_layernorm")  # fmt: skip


def gemma3_backbone_fields(config: Gemma3TextConfig, vocab_size: int) -> dict[str, Any]:
    """Translate Gemma 3's sizes to the arguments of `DiffusionGemmaTextConfig`.

    Args:
        config: of the Gemma 3 checkpoint.
        vocab_size: rows of the embedding matrix that are kept.

    Returns:
        What `AsrConfig.backbone` holds, token ids left out: these are the small vocabulary's.
    """
    softcap = config.final_logit_softcapping
    return {
        "vocab_size": vocab_size, "hidden_size": config.hidden_size, "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers, "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads, "head_dim": config.head_dim,
        "global_head_dim": config.head_dim, "num_global_key_value_heads": config.num_key_value_heads,
        "num_experts": 1, "top_k_experts": 1, "moe_intermediate_size": 8, "sliding_window": config.sliding_window,
        "layer_types": list(config.layer_types or ()), "rope_parameters": config.rope_parameters,
        "rms_norm_eps": config.rms_norm_eps,
        "final_logit_softcapping": NO_SOFTCAP if softcap is None else softcap,
    }  # fmt: skip


def load_gemma3(backbone: DiffusionGemmaForBlockDiffusion, gemma: Gemma3ForCausalLM, rows: Sequence[int]) -> None:
    """Copy a Gemma 3 checkpoint into a backbone that `become_gemma3` has changed.

    Args:
        backbone: built from `gemma3_backbone_fields`.
        gemma: the checkpoint.
        rows: which rows of its embedding matrix become ids 0, 1, … of the small vocabulary.
    """
    decoder: Any = backbone.model.decoder
    source: Any = gemma.model
    with torch.no_grad():
        decoder.embed_tokens.weight.copy_(source.embed_tokens.weight[torch.as_tensor(rows)])
        _copy_norm(decoder.norm, source.norm)
        for own, theirs in zip(decoder.layers, source.layers, strict=True):
            for name in _LINEARS:
                own.get_submodule(name).weight.copy_(theirs.get_submodule(name).weight)
            for name in _NORMS:
                # DiffusionGemma does not scale attention: the scale goes into the norm of the queries.
                factor = theirs.self_attn.scaling if name == "self_attn.q_norm" else 1.0
                _copy_norm(own.get_submodule(name), theirs.get_submodule(name), factor)
        # What Gemma 3 does not have starts as if it were not there: no signal from the step before.
        decoder.self_conditioning.down_proj.weight.zero_()


def _copy_norm(own: nn.Module, theirs: nn.Module, factor: float = 1.0) -> None:
    own.get_parameter("weight").copy_((1.0 + theirs.get_parameter("weight")) * factor)  # Gemma 3 stores w - 1
