"""What a model is made of: sizes, prompt, canvas buckets. Two presets, and the JSON a model folder carries.

Knows no tensors: `asr.py` builds from this. Window length, mel bins and frame rates follow from `encoder`.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from dgasr.errors import ConfigError
from dgasr.model.projector_config import ProjectorConfig
from dgasr.prompt import PromptConfig

HOP_SAMPLES = 160
"""Mel hop of every Whisper checkpoint, samples at 16 kHz (Radford et al. 2022, section 2.2)."""

ENCODER_STRIDE = 2
"""Mel frames per encoder frame: the stride of Whisper's second convolution."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CanvasConfig:
    """How many tokens a segment's canvas has.

    buckets: the allowed lengths, ascending; a fixed set keeps kernel shapes fixed.
    tokens_per_second: upper estimate of the tokens that one second of speech needs.
    margin_tokens: added to the estimate, for the end of text and for short segments.
    """

    buckets: tuple[int, ...]
    tokens_per_second: float
    margin_tokens: int

    def __post_init__(self) -> None:
        if not self.buckets or list(self.buckets) != sorted(set(self.buckets)):
            raise ConfigError(f"canvas.buckets must be ascending and not empty, got {self.buckets}.")

    def bucket_for(self, duration_s: float) -> int:
        """Return the smallest bucket that holds `duration_s` seconds of speech (the largest if none does)."""
        needed = self.tokens_per_second * duration_s + self.margin_tokens
        return self.bucket_holding(needed) or self.buckets[-1]

    def bucket_holding(self, num_tokens: float) -> int | None:
        """Return the smallest bucket of at least `num_tokens` positions; `None` if the largest has fewer."""
        return next((bucket for bucket in self.buckets if bucket >= num_tokens), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraSize:
    """Size of the low-rank adapters on q, k, v and o of both attention copies.

    rank: inner width of each adapter. alpha: scale numerator, the update is multiplied by alpha / rank.
    """

    rank: int = 16
    alpha: int = 32

    @property
    def scale(self) -> float:
        """What the update is multiplied by."""
        return self.alpha / self.rank


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelIdentity:
    """Which weights transcribe; part of the recipe.

    name: preset, or the folder's own name.
    digest: over config, weights and tokenizer, or the revisions of Hub weights.
    adapter_digest: over projector and LoRA put on top, empty without an adapter.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: str
    digest: str
    adapter_digest: str = ""


BackboneFamily = Literal["diffusion_gemma", "gemma3"]
"""What a backbone's layers compute: as DiffusionGemma's do, or as those of a Gemma 3 turned into one (`gemma.py`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AsrConfig:
    """Everything that fixes the shapes and ids of a model.

    name: preset or training name.
    encoder: arguments of transformers' `WhisperConfig` (encoder fields only).
    backbone: arguments of transformers' `DiffusionGemmaTextConfig`.
    projector, prompt, canvas, lora: see their classes.
    blank_id: vocabulary id that stands for the CTC blank; neither pad nor a noise-free token of any transcript.
    blank_bias: constant added to the blank's logit, so that an untrained projector prefers silence.
    has_blank: the blank is known; without one CTC's text is not read, no text is rescored, and words are spread evenly.
    languages: ISO 639-1 codes the model was trained for; the first one is the default.
    start_offset_ms, end_offset_ms: added to CTC word starts and ends; fitted on training data.
    confidence_power: what words' confidences are raised to; fitted on validation data.
    backbone_family: which modules the backbone's layers have.
    rows_at_once: rows of each product on a CPU, whatever the batch, because the bits of a row depend on their number
        (docs/decisions/0025); 0: all, where they do not.
    audio_distance: positions from an audio token to the canvas place of the piece that CTC hears in it; 0: audio tokens
        are numbered one after another, as in the reference, and the decoder has to learn to count (decisions/0026).
    reads_causally: the causal encoder says a text too, token after token, which is chosen from beside the decoder's and
        CTC's; for models whose decoder is not the best reader yet.
    max_steps: denoising steps that a canvas gets at most where nobody asks for another number.
    pretrained: Hub ids of frozen parts, `{"encoder": …, "backbone": …}`; empty when weights lie in the model folder.
    """

    name: str
    encoder: dict[str, Any]
    backbone: dict[str, Any]
    projector: ProjectorConfig
    prompt: PromptConfig
    canvas: CanvasConfig
    blank_id: int
    languages: tuple[str, ...]
    blank_bias: float = 0.0
    has_blank: bool = True
    start_offset_ms: float = 0.0
    end_offset_ms: float = 0.0
    confidence_power: float = 1.0
    lora: LoraSize = field(default_factory=LoraSize)
    backbone_family: BackboneFamily = "diffusion_gemma"
    rows_at_once: int = 0
    audio_distance: int = 0
    reads_causally: bool = False
    max_steps: int = 8
    pretrained: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.backbone_family not in get_args(BackboneFamily):
            raise ConfigError(
                f"backbone_family {self.backbone_family!r}: must be one of {', '.join(get_args(BackboneFamily))}."
            )

    @property
    def window_samples(self) -> int:
        """Samples of one encoder window at 16 kHz."""
        return self.encoder["max_source_positions"] * ENCODER_STRIDE * HOP_SAMPLES

    @property
    def num_audio_tokens(self) -> int:
        """Audio embeddings of one window: 188 for 30 s at 8x subsampling."""
        return -(-self.encoder["max_source_positions"] // self.projector.subsampling)

    @property
    def frame_samples(self) -> int:
        """Samples from one encoder frame to the next: 320, 20 ms."""
        return ENCODER_STRIDE * HOP_SAMPLES

    @property
    def softcap(self) -> float:
        """Bound of the backbone's logits, `softcap * tanh(z / softcap)`."""
        return self.backbone["final_logit_softcapping"]

    @property
    def is_full_attention(self) -> list[bool]:
        """Of each layer whether it attends to everything: every sixth one, where the sizes do not list them."""
        kinds = self.backbone.get("layer_types")
        if kinds is not None:
            return [kind == "full_attention" for kind in kinds]
        return [index % 6 == 5 for index in range(self.backbone["num_hidden_layers"])]

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "AsrConfig":
        """Read what `save` wrote.

        Raises:
            ConfigError: the file is missing, not JSON, or has unknown or missing fields.
        """
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            fields["projector"] = ProjectorConfig(**tuples(fields["projector"]))
            fields["prompt"] = PromptConfig(**tuples(fields["prompt"]))
            fields["canvas"] = CanvasConfig(**tuples(fields["canvas"]))
            fields["lora"] = LoraSize(**fields["lora"])
            return cls(**{**fields, "languages": tuple(fields["languages"])})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{path}: not a model config ({error}). Give `base`, `tiny`, `full` or a folder of `dgasr train`."
            ) from error


def tuples(fields: dict[str, Any]) -> dict[str, Any]:
    """Turn the lists that JSON made of tuples back."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}


TINY_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""What the bundled model can say."""

TINY_SPECIAL_TOKENS = ("<pad>", "<eos>", "<bos>", "<unk>", "<blank>", "<|audio|>", "<boa>", "<eoa>", "<turn|>")
"""Ids 0…8 of the bundled model's vocabulary; the words follow."""


def tiny() -> AsrConfig:
    """Size of the bundled model: the full model's architecture at 8 s windows and a vocabulary of spoken digits."""
    return AsrConfig(
        name="tiny",
        encoder={
            "num_mel_bins": 80, "d_model": 96, "encoder_layers": 3, "encoder_attention_heads": 4,
            "encoder_ffn_dim": 288, "max_source_positions": 400,
        },
        backbone={
            "vocab_size": 24, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "global_head_dim": 32,
            "num_global_key_value_heads": 2, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 64,
            "sliding_window": 256, "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
            "final_logit_softcapping": 30.0, "pad_token_id": 0, "eos_token_id": [1, 8], "bos_token_id": 2,
        },
        projector=ProjectorConfig(channels=(128, 128, 128)),
        prompt=PromptConfig(
            template="<bos>{audio}", begin_audio_id=6, audio_id=5, end_audio_id=7, end_text_ids=(8, 1), pad_id=0
        ),
        canvas=CanvasConfig(buckets=(8, 16, 32), tokens_per_second=3.4, margin_tokens=2),
        blank_id=4,
        blank_bias=3.0,
        languages=("en",),
        lora=LoraSize(rank=4, alpha=8),
    )  # fmt: skip


def full() -> AsrConfig:
    """Size of DiffusionGemma 26B-A4B with whisper-small, as in the reference system.

    Source:
        The published configs of google/diffusiongemma-26B-A4B-it and openai/whisper-small; the projector's
        layout is derived from the reference's parameter count (19,472,896), its prompt's wording is ours.
    """
    return AsrConfig(
        name="full",
        encoder={
            "num_mel_bins": 80, "d_model": 768, "encoder_layers": 12, "encoder_attention_heads": 12,
            "encoder_ffn_dim": 3072, "max_source_positions": 1500,
        },
        backbone={
            "vocab_size": 262_144, "hidden_size": 2816, "intermediate_size": 2112, "num_hidden_layers": 30,
            "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 256, "global_head_dim": 512,
            "num_global_key_value_heads": 2, "num_experts": 128, "top_k_experts": 8, "moe_intermediate_size": 704,
            "sliding_window": 1024, "final_logit_softcapping": 30.0,
            "pad_token_id": 0, "eos_token_id": [1, 106, 50], "bos_token_id": 2,
        },
        projector=ProjectorConfig(channels=(1024, 1024, 1024)),
        prompt=PromptConfig(
            template=(
                "<bos><|turn>user\n{audio}Transcribe this speech in {language}.<turn|>\n"
                "<|turn>model\n<|channel>thought\n<channel|>"
            ),
            begin_audio_id=256_000, audio_id=258_881, end_audio_id=258_883, end_text_ids=(106, 1, 50), pad_id=0,
        ),
        canvas=CanvasConfig(buckets=(64, 96, 128, 192, 256), tokens_per_second=5.5, margin_tokens=8),
        blank_id=4,
        languages=("en", "de", "fr", "es", "hi", "zh"),
        pretrained={"encoder": "openai/whisper-small", "backbone": "google/diffusiongemma-26B-A4B-it"},
    )  # fmt: skip
