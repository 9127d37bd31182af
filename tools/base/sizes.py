"""Sizes and ids of the model `base`: Whisper base, a projector of 12.5 tokens a second, some layers of Gemma 3 270M."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, WhisperConfig

from dgasr.model.presets import AsrConfig, CanvasConfig, ProjectorConfig
from dgasr.prompt import PromptConfig
from dgasr.records import SAMPLE_RATE_HZ
from tools.gemma import gemma3_backbone_fields

BLANK_ID = 4
"""`<blank>` in `vocabulary.SPECIAL_TOKENS`."""

AUDIO_DISTANCE = 128
"""More than a window has pieces, so that none is numbered behind the canvas's first place."""

MAX_STEPS = 2
"""Denoising steps: the decoder is young, and at 2, 4 and 8 not one word of 40 clips differs (docs/experiments.md)."""

CONFIDENCE_POWER, CONFIDENCE_SHIFT = 0.7, 0.7
"""Fitted on the 167 validation clips beside those of the card (docs/experiments.md, "Spoken numbers")."""

MIN_CONFIDENCE = 0.75
"""So that words made up of other languages are flagged (docs/experiments.md, "Flags that tell")."""

WINDOW_S = 15.0
"""Length of a window: 188 audio tokens, as many as the reference has in 30 s."""

WINDOW_SAMPLES = round(WINDOW_S * SAMPLE_RATE_HZ)
WINDOW_FRAMES = round(WINDOW_S * 50)
"""Encoder frames of a window."""


def load_gemma(folder: Path, layers: Sequence[int] | None) -> Gemma3ForCausalLM:
    """Load Gemma 3 in float32, with all of its layers or, in their order, some."""
    gemma = Gemma3ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if layers is None:
        return gemma
    kinds = gemma.config.layer_types or []
    gemma.model.layers = nn.ModuleList([gemma.model.layers[index] for index in layers])
    gemma.config.layer_types = [kinds[index] for index in layers]
    gemma.config.num_hidden_layers = len(layers)
    return gemma


def num_frozen(whisper: WhisperConfig) -> int:
    """Count the lower layers of Whisper's encoder that stay as they are, its convolutions with them."""
    return whisper.encoder_layers // 2


def projector_config(whisper: WhisperConfig, hidden_size: int) -> ProjectorConfig:
    """Lay out the projector.

    12.5 audio tokens a second: at 6.25, as in the reference, fast speech has more pieces than CTC has frames.
    """
    return ProjectorConfig(
        channels=(whisper.d_model, whisper.d_model), has_hidden=True, hidden_width=hidden_size, blocks=3,
        norms=("convs.1=layer", "output=rms"),
    )  # fmt: skip


def base_config(whisper: WhisperConfig, gemma: Gemma3TextConfig, vocab_size: int) -> AsrConfig:
    """Compose the configuration of `base` from those of its pretrained parts."""
    return AsrConfig(
        name="base",
        encoder={
            "num_mel_bins": whisper.num_mel_bins, "d_model": whisper.d_model, "encoder_layers": whisper.encoder_layers,
            "encoder_attention_heads": whisper.encoder_attention_heads, "encoder_ffn_dim": whisper.encoder_ffn_dim,
            "max_source_positions": WINDOW_FRAMES,
        },
        backbone={
            **gemma3_backbone_fields(gemma, vocab_size),
            "pad_token_id": 0, "eos_token_id": [1], "bos_token_id": 2,
        },
        backbone_family="gemma3",
        projector=projector_config(whisper, gemma.hidden_size),
        prompt=PromptConfig(
            template="<bos>{audio}<{language}>", begin_audio_id=6, audio_id=5, end_audio_id=7, end_text_ids=(1,),
            pad_id=0,
        ),
        canvas=CanvasConfig(buckets=(16, 32, 64, 96), tokens_per_second=6.0, margin_tokens=4),
        blank_id=BLANK_ID,
        languages=("en",),
        rows_at_once=4,
        audio_distance=AUDIO_DISTANCE,
        reads_causally=True,
        max_steps=MAX_STEPS,
        confidence_power=CONFIDENCE_POWER,
        confidence_shift=CONFIDENCE_SHIFT,
        min_confidence=MIN_CONFIDENCE,
    )  # fmt: skip
