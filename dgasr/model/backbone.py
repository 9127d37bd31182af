"""A configuration in, DiffusionGemma with first weights out, without what sees images. Knows no audio."""

from typing import Any

from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion, DiffusionGemmaTextConfig

from dgasr.model.experts import choose_experts
from dgasr.model.gemma import become_gemma3
from dgasr.model.presets import AsrConfig

IMAGE_TOKEN_ID = 258_880
"""The published vocabulary's image token; no prompt of ours holds one."""

SMALLEST_VISION_TOWER: dict[str, Any] = {
    "model_type": "gemma4_vision", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
    "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 8, "position_embedding_size": 8,
}  # fmt: skip
"""transformers builds a vision tower whatever is asked for; this one is built to be thrown away."""


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
    """Put transformers' configuration together.

    Args:
        config: `backbone` holds the text config's fields; the largest canvas bucket becomes `canvas_length`.
    """
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
