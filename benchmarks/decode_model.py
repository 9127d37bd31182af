"""The model and clips that decoding is measured on: of any size, drawn at random, which does not change the work."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers import DiffusionGemmaForBlockDiffusion, WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from benchmarks.bound import PROMPT_TEXT_TOKENS
from dgasr.model.asr import AsrModel
from dgasr.model.backbone import backbone_config, choose_experts, drop_vision_tower
from dgasr.model.identity import read_config
from dgasr.model.presets import AsrConfig, ModelIdentity
from dgasr.prompt import Tokenizer
from dgasr.records import SAMPLE_RATE_HZ, Segment

DECIDING_BIAS = 100.0
"""On the blank's logit: more than two soft caps apart, whatever the network says."""


RANDOM_DIGEST = "random"


def random_model(name: str, device: torch.device, dtype: torch.dtype) -> AsrModel:
    """Draw a model of a preset's or folder's size; it says nothing, at the speed of one that does.

    Args:
        name: `tiny`, `full` or a model folder.
        device: where the weights are drawn and stay.
        dtype: of the weights.
    """
    # At random CTC hears eight long texts that differ, which nobody says; silence costs it what speech does.
    config = replace(read_config(name), blank_bias=DECIDING_BIAS)
    torch.manual_seed(0)
    parts: tuple[tuple[Any, Any], ...] = (
        (WhisperEncoder, WhisperConfig(**config.encoder)), (DiffusionGemmaForBlockDiffusion, backbone_config(config)),
    )  # fmt: skip
    # From no checkpoint: transformers draws all of it where it stays, tied weights once.
    encoder, backbone = (
        kind.from_pretrained(None, config=sizes, state_dict={}, dtype=dtype, device_map=device) for kind, sizes in parts
    )
    drop_vision_tower(backbone)
    choose_experts(backbone)
    for name, buffer in backbone.named_buffers():
        if name.endswith("layer_scalar"):
            buffer.fill_(1)
    identity = ModelIdentity(name=f"{config.name} with random weights", digest=RANDOM_DIGEST)
    model = AsrModel(config, prompt_tokenizer(), identity, encoder=encoder, backbone=backbone)
    model.projector.to(device, dtype)
    return model.eval().requires_grad_(False)


def prompt_tokenizer() -> Tokenizer:
    """Give a tokenizer that knows no text and makes prompts of the usual length."""
    return Tokenizer(_FixedLength(), None)


class _FixedLength:
    """Stands for a transformers tokenizer: half of the prompt's text is before the audio, half after it."""

    def encode(self, text: str, **_: Any) -> list[int]:
        return [3] * (PROMPT_TEXT_TOKENS // 2 - 1)

    def decode(self, ids: list[int], **_: Any) -> str:
        return " ".join(map(str, ids))


def noise_segments(config: AsrConfig, duration_s: float, count: int) -> list[tuple[Segment, np.ndarray]]:
    """Make segments of noise: what is in them does not change the work."""
    num_samples = min(round(duration_s * SAMPLE_RATE_HZ), config.window_samples)
    generator = np.random.default_rng(0)
    waveform = (0.1 * generator.standard_normal(num_samples)).astype(np.float32)
    return [
        (
            Segment(
                recording_id=f"{index:032x}", segment_index=0, channel=0, start_sample=0, end_sample=num_samples,
                kind="speech", cut="end",
            ),
            waveform,
        )
        for index in range(count)
    ]  # fmt: skip
