"""The model of a run, loaded once per process: settings in, recipe and transcriber out.

Imports nothing heavy: the command line reads the settings' defaults for `--help`.
"""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from dgasr.audio import AudioConfig, Channels, Limits, Track
from dgasr.errors import ConfigError
from dgasr.model.identity import Quantize, default_model, identify
from dgasr.model.presets import AsrConfig, ModelIdentity
from dgasr.recipe import (
    RESCORE,
    SEGMENTATION,
    Recipe,
    Rescore,
    SegmentationMethod,
    build_recipe,
)
from dgasr.records import settings

if TYPE_CHECKING:
    from dgasr.model.asr import AsrModel
    from dgasr.transcriber import Transcriber


MOST_SEGMENTS = 4096
"""Segments at once, at most: a number beyond is a slip, and would keep a processor busy for hours with padding."""


@settings
class EngineConfig:
    """Which model transcribes, and how; small enough to travel between tasks."""

    model: str = field(default_factory=default_model)
    """`base`, `tiny`, `full` or a model folder."""
    adapter: str | None = None
    """Projector and LoRA to put on the model, or `None` for none."""
    merge_adapter: bool | None = None
    """Add the adapter's LoRA into the weights: faster, 4 % more of them, rounded otherwise; `None`: on CUDA."""
    compile: bool | None = None
    """Let torch compile the decoder: minutes, then faster steps, rounded otherwise; `None`: on CUDA
    with Triton, where the frozen parts are pretrained and not quantised."""
    quantize: Quantize = "none"
    """`int8`: the backbone's matrices in 8 bits, half the memory."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or, of several GPUs, `cuda:1`."""
    max_steps: int | None = None
    """Most denoising steps for a segment, or `None` for the model's own number."""
    batch_size: int = 16
    """Segments decoded at once; 0 for as many as the device's free memory holds."""
    language: str | None = None
    """Language that is spoken, or `None` for the model's own."""
    rescore: Rescore = RESCORE
    """`joint` takes CTC's text where two likelihoods prefer it to the decoder's; `none` never."""
    segmentation: SegmentationMethod = SEGMENTATION
    """What tells pauses, a `speech` model or `loudness` alone."""
    channels: Channels = "mix"
    """`mix` of all, a transcript of `each`, or the number of one, from 0."""
    track: Track = "auto"
    """`auto` for the audio track with most sound, a transcript of `each`, or the number of one, from 0."""
    limits: Limits = field(default_factory=Limits)
    """What a file may take before it is rejected."""

    @property
    def audio(self) -> AudioConfig:
        """How audio is read."""
        return AudioConfig(channels=self.channels, track=self.track, limits=self.limits)

    def __post_init__(self) -> None:
        """Refuse numbers with which nothing is decoded, and devices that are none."""
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ConfigError(f"--device {self.device}: choose auto, cpu, cuda or cuda:N.")
        _ = self.audio  # refuses channels and tracks that none has
        if (self.max_steps is not None and self.max_steps < 1) or self.batch_size < 0:
            raise ConfigError(
                f"EngineConfig: max_steps={self.max_steps} must be 1 or more, batch_size={self.batch_size} 0 or more."
            )
        if self.batch_size > MOST_SEGMENTS:
            raise ConfigError(f"--batch-size {self.batch_size}: at most {MOST_SEGMENTS}; auto takes what fits.")
        if self.merge_adapter and self.adapter is None:
            raise ConfigError("--merge-adapter: there is nothing to merge. Give --adapter, or leave it out.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """A loaded model with the recipe it follows."""

    recipe: Recipe
    transcriber: "Transcriber"
    device: str
    """Where the model runs, `cpu` or `cuda:0`, and which fused kernel runs its experts, if one does."""


def recipe_of(config: EngineConfig) -> Recipe:
    """Name the recipe that an engine would follow, without loading it; ConfigError where there is no such model."""
    model, identity = identify(
        config.model,
        config.adapter,
        merge_adapter=config.merge_adapter,
        compiled=config.compile,
        quantize=config.quantize,
    )
    return _recipe(model, identity, config)


@lru_cache(maxsize=1)
def start_engine(config: EngineConfig) -> Engine:
    """Load the model, or return the one that this process has loaded; ConfigError where there is no such model."""
    # torch takes seconds to import, and who only plans or reads audio never needs it.
    from dgasr.model.backbone import FUSED_EXPERTS
    from dgasr.transcriber import Transcriber
    from dgasr.transcriber.loading import fitting_batch_size

    model = load_model(config)
    recipe = recipe_for(model, config)
    device = str(model.device)
    if device.startswith("cuda"):
        experts = model.backbone.config.get_text_config()._experts_implementation
        device += f", experts by {experts}" if experts in FUSED_EXPERTS else ""
    batch_size = config.batch_size or fitting_batch_size(model, recipe)
    transcriber = Transcriber(model, recipe, batch_size)
    return Engine(recipe=recipe, transcriber=transcriber, device=device)


def load_model(config: EngineConfig) -> "AsrModel":
    """Load the model that an engine decodes with, as its settings say."""
    from dgasr.transcriber import load

    return load(
        config.model,
        adapter=config.adapter,
        device=config.device,
        merge_adapter=config.merge_adapter,
        compiled=config.compile,
        quantize=config.quantize,
    )


def recipe_for(model: "AsrModel", config: EngineConfig) -> Recipe:
    """Name the recipe that a loaded model follows."""
    return _recipe(model.config, model.identity, config)


def _recipe(model: AsrConfig, identity: ModelIdentity, config: EngineConfig) -> Recipe:
    return build_recipe(
        model, identity, max_steps=config.max_steps, language=config.language,
        rescore=config.rescore, segmentation=config.segmentation, audio=config.audio,
    )  # fmt: skip
