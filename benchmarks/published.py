"""Checkpoints in the published file format, small and with random weights: sharded, tied once, with a vision tower."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from transformers import DiffusionGemmaForBlockDiffusion, PreTrainedTokenizerFast, WhisperConfig, WhisperModel

from dgasr.model.backbone import backbone_config
from dgasr.model.presets import AsrConfig, tiny
from dgasr.prompt import PromptConfig
from tools.tiny.fresh import write_word_tokenizer
from tools.tiny.voices import DIGITS

LANGUAGE_WORDS = ("English", "German")


def write_checkpoints(folder: Path, config: AsrConfig, dtype: torch.dtype, spread: float = 1.0) -> None:
    """Write backbone, whisper and a model folder that names them, as the Hub has them.

    Args:
        folder: where; `config.json` is then a model folder's.
        config: sizes.
        dtype: of the backbone's weights.
        spread: what its first weights are multiplied by, embeddings five times that; from 4 on some canvases settle.
    """
    torch.manual_seed(0)
    backbone = DiffusionGemmaForBlockDiffusion(backbone_config(config))
    for index, (name, buffer) in enumerate(backbone.named_buffers()):
        if name.endswith("layer_scalar"):
            buffer.fill_(1 + index / 100)  # the encoder's and the decoder's differ, unlike all weights
    if spread != 1.0:
        for name, parameter in backbone.named_parameters():
            if parameter.dim() > 1:
                parameter.data *= 5 * spread if "embed_tokens" in name else spread
    size = sum(parameter.numel() for parameter in backbone.parameters()) * dtype.itemsize
    cast: Any = backbone.to  # transformers' annotation loses its first argument
    cast(dtype).save_pretrained(folder / "backbone", max_shard_size=size // 8)
    whisper = WhisperConfig(
        **config.encoder, decoder_layers=1, decoder_attention_heads=1, decoder_ffn_dim=8, vocab_size=60,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=3,
    )  # fmt: skip
    WhisperModel(whisper).save_pretrained(folder / "whisper")
    write_word_tokenizer(folder, (*DIGITS, *LANGUAGE_WORDS))
    PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), unk_token="<unk>").save_pretrained(
        folder / "backbone"
    )
    named = replace(config, pretrained={"encoder": "./whisper", "backbone": "./backbone"})
    (folder / "config.json").write_text(json.dumps(asdict(named)))


def reduced() -> AsrConfig:
    """Give the published structure in small: five sliding layers and a full one, unequal heads, grouped experts."""
    config = tiny()
    return replace(
        config,
        name="reduced",
        backbone={
            **config.backbone, "num_hidden_layers": 6, "num_key_value_heads": 4, "num_global_key_value_heads": 2,
            "head_dim": 16, "global_head_dim": 32, "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
            "num_experts": 16, "top_k_experts": 4, "moe_intermediate_size": 32,
        },
        prompt=PromptConfig(
            template="<bos>{audio}{language}", begin_audio_id=6, audio_id=5, end_audio_id=7, end_text_ids=(8, 1),
            pad_id=0,
        ),
        languages=("en", "de"),
    )  # fmt: skip
