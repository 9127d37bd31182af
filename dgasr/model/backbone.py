"""A configuration in, DiffusionGemma with first weights out, without what sees images. Knows no audio.

Where experts are few, every expert sees every token, and the unchosen ones weigh nothing. transformers' `grouped_mm`
and `eager` hand each expert only its tokens; a matrix product of one to three rows sums in another order than one of
more (measured on x86, one thread), so a segment's bits would depend on its batch. With 128 experts this would cost 16
times the work.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion, DiffusionGemmaTextConfig
from transformers.integrations.deepgemm import is_deepgemm_loadable
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
from transformers.integrations.sonicmoe import is_sonicmoe_loadable

from dgasr.model.presets import AsrConfig

logger = logging.getLogger(__name__)

IMAGE_TOKEN_ID = 258_880
"""The published vocabulary's image token; no prompt of ours holds one."""

SMALLEST_VISION_TOWER: dict[str, Any] = {
    "model_type": "gemma4_vision", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
    "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 8, "position_embedding_size": 8,
}  # fmt: skip
"""transformers builds a vision tower whatever is asked for; this one is built to be thrown away."""

EVERY_EXPERT = "every_expert"
"""Name to pass to `set_experts_implementation`."""

FUSED_EXPERTS: dict[str, Callable[[], bool]] = {"sonicmoe": is_sonicmoe_loadable, "deepgemm": is_deepgemm_loadable}
"""transformers' kernels for a layer's experts, the one that also adds up in the kernel first, and whether they can be
loaded: grouped products hold what experts make of tokens several times, 6 GB of traffic a layer at 64 canvases."""

FUSED_TOLERANCE = 0.02
"""Of the difference of two implementations in bfloat16, which rounds each value by up to 0.4 %."""

PROBE_TOKENS = 256

EVERY_EXPERT_LIMIT = 8
"""Experts up to which every expert sees every token: bits that do not depend on the batch, for little work."""


def build_backbone(config: AsrConfig) -> DiffusionGemmaForBlockDiffusion:
    """Build DiffusionGemma without its vision tower, with transformers' own initial weights."""
    backbone = DiffusionGemmaForBlockDiffusion(backbone_config(config))
    drop_vision_tower(backbone)
    if config.backbone_family == "gemma3":
        become_gemma3(backbone)
    else:
        choose_experts(backbone)
    return backbone


def backbone_config(config: AsrConfig) -> DiffusionGemmaConfig:
    """Put transformers' configuration together; the largest canvas bucket becomes its `canvas_length`."""
    text_config = DiffusionGemmaTextConfig(**config.backbone)
    return DiffusionGemmaConfig(
        text_config=text_config,
        vision_config=SMALLEST_VISION_TOWER,
        canvas_length=config.canvas.buckets[-1],
        # transformers up to 5.17 looks this id up in every prefill, so it must lie inside a small vocabulary.
        image_token_id=min(IMAGE_TOKEN_ID, text_config.vocab_size - 1),
    )


def drop_vision_tower(backbone: DiffusionGemmaForBlockDiffusion) -> None:
    """Forget the parts that see images, in place."""
    encoder: Any = backbone.model.encoder
    encoder.vision_tower = None
    encoder.embed_vision = None


def become_gemma3(backbone: DiffusionGemmaForBlockDiffusion) -> None:
    """Replace, in place, the modules in which DiffusionGemma differs from Gemma 3.

    Gemma 3 does not normalise values, has its own values in full-attention layers too, and has no experts.
    """
    model: Any = backbone.model
    for encoder_layer, decoder_layer in zip(model.encoder.language_model.layers, model.decoder.layers, strict=True):
        attention = decoder_layer.self_attn
        values = attention.v_proj
        if values is None:
            values = nn.Linear(attention.k_proj.in_features, attention.k_proj.out_features, bias=False)
        for layer in (encoder_layer, decoder_layer):
            layer.self_attn.v_proj = values  # one module in both, as all matrices of the two stacks are
            layer.self_attn.v_norm = nn.Identity()
            layer.post_feedforward_layernorm_1 = nn.Identity()
            layer.pre_feedforward_layernorm_2 = nn.Identity()
            layer.post_feedforward_layernorm_2 = nn.Identity()
            layer.router, layer.experts = _NoRouter(), _NoExperts()


class _NoRouter(nn.Module):
    """Stands where DiffusionGemma chooses experts."""

    def forward(self, hidden: Tensor) -> tuple[None, None, None]:
        return None, None, None


class _NoExperts(nn.Module):
    """Stands where DiffusionGemma runs experts; adds nothing."""

    def forward(self, hidden: Tensor, *_: Any) -> Tensor:
        return torch.zeros_like(hidden)


def choose_experts(backbone: DiffusionGemmaForBlockDiffusion) -> None:
    """Let every expert see every token where they are few, in place."""
    if backbone.config.get_text_config().num_experts <= EVERY_EXPERT_LIMIT:
        backbone.set_experts_implementation(EVERY_EXPERT)


def choose_fused_experts(backbone: Any) -> str:
    """Let a GPU's experts run in one kernel, where transformers finds one that gives what grouped products give.

    Each of `FUSED_EXPERTS` is tried on one layer of a backbone on its device; what is missing, fails or differs is
    passed over, and its own implementation stays. Returns, and logs, the one that runs.
    """
    current: str = backbone.config.get_text_config()._experts_implementation
    if current == EVERY_EXPERT:
        return current
    for name, is_loadable in FUSED_EXPERTS.items():
        if not is_loadable():
            continue
        try:
            apart = _apart(backbone.model.decoder.layers[0].experts, current, name)
        except Exception as error:  # whatever a kernel built for another machine does
            logger.warning("experts by %s: not used, it fails here (%s)", name, error)
            continue
        if apart <= FUSED_TOLERANCE:
            backbone.set_experts_implementation(name)
            logger.info("experts by %s, %.2g from those by %s", name, apart, current)
            return name
        logger.warning("experts by %s: not used, %.2g from those by %s", name, apart, current)
    logger.info("experts by %s", current)
    return current


@torch.no_grad()
def _apart(experts: Any, plain: str, fused: str) -> float:
    """How far two implementations are apart, relative to what they give, on tokens drawn at random."""
    weight, sizes = experts.gate_up_proj, (PROBE_TOKENS, experts.config.top_k_experts)
    generator = torch.Generator(weight.device).manual_seed(0)
    hidden = torch.randn(PROBE_TOKENS, weight.shape[-1], generator=generator, device=weight.device).to(weight.dtype)
    scores = torch.rand(PROBE_TOKENS, experts.num_experts, generator=generator, device=weight.device)
    shares, chosen = scores.topk(sizes[1], dim=-1)
    wanted, found = (
        ALL_EXPERTS_FUNCTIONS[name](experts, hidden, chosen, shares.to(weight.dtype)).float() for name in (plain, fused)
    )
    return float((found - wanted).norm() / wanted.norm())


def run_every_expert(experts: Any, hidden: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """Run all experts on all tokens, and add up the chosen ones by their shares; [tokens, hidden], [tokens, k] each.

    `experts` is transformers' module with `gate_up_proj` [experts, 2 x inner, hidden] and `down_proj` [experts, hidden,
    inner].
    """
    shares = hidden.new_zeros(hidden.shape[0], experts.num_experts)
    shares = shares.scatter(1, top_k_index, top_k_weights.to(hidden.dtype))  # [tokens, experts]
    everywhere = hidden.expand(experts.num_experts, -1, -1)  # matmul would choose its order by who needs a gradient
    inner = experts._apply_gate(everywhere.bmm(experts.gate_up_proj.transpose(1, 2)))  # [experts, tokens, inner]
    outputs = inner.bmm(experts.down_proj.transpose(1, 2))  # [experts, tokens, hidden]
    return (outputs * shares.t().unsqueeze(-1)).sum(dim=0)


ALL_EXPERTS_FUNCTIONS.register(EVERY_EXPERT, run_every_expert)
