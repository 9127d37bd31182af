"""What a model is made of: sizes, projector, prompt, canvas buckets: what the `config.json` of a model folder holds.

Knows no tensors: `asr.py` builds from this. Window length, mel bins and frame rates follow from `encoder`.
"""

import json
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import TypeAdapter

from dgasr.errors import ConfigError
from dgasr.prompt import PromptConfig
from dgasr.records import settings

HOP_SAMPLES = 160
"""Mel hop of every Whisper checkpoint, samples at 16 kHz (Radford et al. 2022, section 2.2)."""

ENCODER_STRIDE = 2
"""Mel frames per encoder frame: the stride of Whisper's second convolution."""


Activation = Literal["gelu", "relu", "silu"]


@settings
class ProjectorConfig:
    """Layout of a projector; the defaults are the bundled models'.

    channels: output channels of each stride-2 convolution; each halves the number of frames.
    kernel_size: odd, in frames; padding keeps `ceil(frames / 2)`.
    stack: frames that are laid side by side before the linear layers; 1 for none.
    has_hidden: two linear layers with an activation between, or one.
    hidden_width: outputs of the first of two linear layers; 0 for the backbone's width.
    blocks: residual blocks after the convolutions: norm, a convolution of `block_kernel` frames, GELU, a linear layer.
    block_kernel: odd, in frames after the stride-2 convolutions.
    unbiased: layers without a bias, of `convs.N`, `hidden`, `output`.
    activation: between layers, of `gelu`, `relu`, `silu`.
    norm_epsilon: added to the norms' variance; Gemma's.
    norms: where there is a norm, and which, as `place=layer` or `place=rms`; places are `input`, `stacked`, and after
        a layer's activation its name, before it `name.linear`; nothing follows `output`'s.
    """

    channels: tuple[int, ...]
    kernel_size: int = 3
    stack: int = 1
    has_hidden: bool = True
    hidden_width: int = 0
    blocks: int = 0
    block_kernel: int = 5
    unbiased: tuple[str, ...] = ()
    norms: tuple[str, ...] = ()
    activation: Activation = "gelu"
    norm_epsilon: float = 1e-6

    def __post_init__(self) -> None:
        if self.kernel_size % 2 == 0 or self.stack < 1 or self.subsampling == 1:
            raise ConfigError(
                "projector: needs an odd kernel_size and frames to shorten by channels or stack, got kernel_size "
                f"{self.kernel_size}, channels {self.channels}, stack {self.stack}."
            )
        if self.blocks and (self.block_kernel % 2 == 0 or not self.channels):
            raise ConfigError(
                f"projector: blocks={self.blocks} need channels and an odd block_kernel, got {self.block_kernel}."
            )
        if self.activation not in get_args(Activation) or self.norm_epsilon <= 0:
            raise ConfigError(
                f"projector: activation {self.activation!r} is to be one of {', '.join(get_args(Activation))}, "
                f"norm_epsilon {self.norm_epsilon} above 0."
            )
        unknown = sorted({*self.unbiased} - {*self.layers}) + sorted({*self.norm_kinds} - {*self.places})
        if unknown or {*self.norm_kinds.values()} - {"layer", "rms"}:
            raise ConfigError(
                f"projector: no place for {unknown or self.norms}. Layers are {', '.join(self.layers)}; norms are "
                f"`place=layer` or `place=rms` at {', '.join(self.places)}."
            )

    @property
    def subsampling(self) -> int:
        """Encoder frames per audio embedding."""
        return int(2 ** len(self.channels)) * self.stack

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers with weights, in order."""
        hidden = ("hidden",) if self.has_hidden else ()
        return (*(f"convs.{index}" for index in range(len(self.channels))), *hidden, "output")

    @property
    def places(self) -> tuple[str, ...]:
        """Where norms may be, in order."""
        convs = [place for name in self.layers if name.startswith("convs") for place in (f"{name}.linear", name)]
        hidden = ("hidden.linear", "hidden") if self.has_hidden else ()
        return ("input", *convs, "stacked", *hidden, "output")

    @property
    def norm_kinds(self) -> dict[str, str]:
        """Place → `layer` or `rms`."""
        return {place: kind for place, _, kind in (norm.partition("=") for norm in self.norms)}

    def widths(self, encoder_width: int, hidden_size: int) -> dict[str, int]:
        """Say how wide the values are at each place, between encoder frames and the backbone's width."""
        before = self.channels[-1] if self.channels else encoder_width
        hidden = self.hidden_width or hidden_size
        widths = {"input": encoder_width, "stacked": before * self.stack, "output": hidden_size}
        widths |= {"hidden": hidden, "hidden.linear": hidden}
        for index, channels in enumerate(self.channels):
            widths |= {f"convs.{index}": channels, f"convs.{index}.linear": channels}
        return widths


@settings
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


@settings
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


@settings
class ModelIdentity:
    """Which weights transcribe; part of the recipe.

    name: preset, or the folder's own name.
    digest: over config, weights and tokenizer, or the revisions of Hub weights.
    adapter_digest: over projector and LoRA put on top, empty without an adapter.
    """

    name: str
    digest: str
    adapter_digest: str = ""


BackboneFamily = Literal["diffusion_gemma", "gemma3"]
"""What a backbone's layers compute: as DiffusionGemma's do, or as those of a Gemma 3 made one (`backbone.py`)."""


@settings
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
    confidence_power, confidence_shift: scale and shift of the log odds that a word is right; fitted on validation data.
    min_confidence: segment confidence below which a text is flagged; where confidence is scaled, this moves with it.
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
    confidence_shift: float = 0.0
    min_confidence: float = 0.5
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
    def blank_logit(self) -> tuple[int, float]:
        """Id of the CTC blank, and the constant on its logit."""
        return self.blank_id, self.blank_bias

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
        """Read what `save` wrote; ConfigError where the file is missing, not JSON, or has unknown or missing fields."""
        try:
            return TypeAdapter(cls).validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{path}: not a model config ({error}). Give `base`, `tiny`, `full` or a folder of `dgasr train`."
            ) from error


def full() -> AsrConfig:
    """Size of DiffusionGemma 26B-A4B with whisper-small, as in the reference system (`full/README.md` has sources)."""
    return AsrConfig.load(Path(__file__).parent / "full" / "config.json")


def tiny() -> AsrConfig:
    """Size of the bundled small model before it was calibrated: what it and models of tests begin from."""
    bundled = AsrConfig.load(Path(__file__).parent / "tiny" / "config.json")
    return replace(bundled, start_offset_ms=0.0, end_offset_ms=0.0, confidence_power=1.0)
