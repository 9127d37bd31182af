"""Sizes and ids of the model `base`: Whisper base, a projector of 12.5 tokens a second, Gemma 3 270M."""

from transformers import Gemma3ForCausalLM

from dgasr.model.gemma import gemma3_backbone_fields
from dgasr.model.presets import AsrConfig, CanvasConfig
from dgasr.model.projector_config import ProjectorConfig
from dgasr.prompt import PromptConfig

BLANK_ID = 4
"""`<blank>` in `vocabulary.SPECIAL_TOKENS`."""

PROJECTOR = ProjectorConfig(
    channels=(512, 512), has_hidden=True, hidden_width=640, blocks=3, norms=("convs.1=layer", "output=rms")
)
"""12.5 audio tokens a second: at 6.25 fast speech has more pieces than CTC has frames."""

ENCODER = {
    "num_mel_bins": 80, "d_model": 512, "encoder_layers": 6, "encoder_attention_heads": 8, "encoder_ffn_dim": 2048,
    "max_source_positions": 750,
}  # fmt: skip
"""Whisper base at windows of 15 s: 188 audio tokens, as the reference has in 30 s."""


def base_config(gemma: Gemma3ForCausalLM, vocab_size: int) -> AsrConfig:
    """Compose the configuration of `base`: Whisper base, the projector, Gemma 3 270M with a small vocabulary."""
    return AsrConfig(
        name="base",
        encoder=ENCODER,
        backbone={
            **gemma3_backbone_fields(gemma.config, vocab_size),
            "pad_token_id": 0, "eos_token_id": [1], "bos_token_id": 2,
        },
        backbone_family="gemma3",
        projector=PROJECTOR,
        prompt=PromptConfig(
            template="<bos>{audio}<{language}>", begin_audio_id=6, audio_id=5, end_audio_id=7, end_text_ids=(1,),
            pad_id=0,
        ),
        canvas=CanvasConfig(buckets=(16, 32, 64, 96), tokens_per_second=6.0, margin_tokens=4),
        blank_id=BLANK_ID,
        languages=("en",),
    )  # fmt: skip
