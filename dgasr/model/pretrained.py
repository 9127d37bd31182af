"""Frozen parts from the Hugging Face Hub or from folders: DiffusionGemma and Whisper's encoder. Knows no adapter."""

from typing import Any

import torch
from transformers import AutoTokenizer, DiffusionGemmaForBlockDiffusion, WhisperModel

from dgasr.errors import ConfigError
from dgasr.model.asr import AsrModel, drop_vision_tower
from dgasr.model.presets import AsrConfig, ModelIdentity
from dgasr.prompt import Tokenizer


def load_pretrained(config: AsrConfig, dtype: torch.dtype = torch.bfloat16) -> AsrModel:
    """Load the frozen parts that a configuration names; the projector has fresh weights.

    Args:
        config: `pretrained` names the Hub ids or folders of `encoder` and `backbone`.
        dtype: of the frozen weights.

    Returns:
        The model in evaluation mode on the CPU.

    Raises:
        ConfigError: weights are absent or gated, or their sizes are not the configuration's.
    """
    encoder_source, backbone_source = config.pretrained["encoder"], config.pretrained["backbone"]
    try:
        encoder = WhisperModel.from_pretrained(encoder_source, dtype=dtype).get_encoder()
        backbone = DiffusionGemmaForBlockDiffusion.from_pretrained(backbone_source, dtype=dtype)
        tokenizer = AutoTokenizer.from_pretrained(backbone_source)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"The weights of {encoder_source} and {backbone_source} are not to be had ({_first_line(error)}). Accept "
            "the licence on the model's page and run `hf auth login`, or put them into the Hub cache with "
            f"`hf download {backbone_source}`; without a network set HF_HUB_OFFLINE=1."
        ) from error
    drop_vision_tower(backbone)
    _check_sizes(config, encoder.config, backbone.config.get_text_config())
    revisions = [str(getattr(part.config, "_commit_hash", None) or "local") for part in (encoder, backbone)]
    identity = ModelIdentity(name=config.name, digest="+".join(revisions))
    wrapped = Tokenizer(tokenizer, tokenizer.unk_token_id)
    return AsrModel(config, wrapped, identity, encoder=encoder, backbone=backbone).eval().requires_grad_(False)


def _check_sizes(config: AsrConfig, encoder: Any, backbone: Any) -> None:
    wrong = [
        f"{name} {getattr(part, name)} instead of {wanted[name]}"
        for part, wanted in ((encoder, config.encoder), (backbone, config.backbone))
        for name in (
            "d_model",
            "max_source_positions",
            "num_mel_bins",
            "hidden_size",
            "vocab_size",
            "num_hidden_layers",
        )
        if name in wanted and getattr(part, name) != wanted[name]
    ]
    if wrong:
        raise ConfigError(
            f"The weights of model {config.name} have {', '.join(wrong)}. Name the checkpoints it is for."
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
