"""The model of a run, loaded once per process: settings in, recipe and transcriber out.

Imports nothing heavy: the command line reads the settings' defaults for `--help`.
"""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from dgasr.audio import AudioConfig, Channels, Limits, Track
from dgasr.errors import ConfigError
from dgasr.model.identity import Quantize, identify
from dgasr.model.presets import AsrConfig, ModelIdentity
from dgasr.recipe import (
    RESCORE,
    SEED_CANVAS,
    SEGMENTATION,
    Recipe,
    Rescore,
    SeedCanvas,
    SegmentationMethod,
    build_recipe,
)

if TYPE_CHECKING:
    from dgasr.model.asr import AsrModel
    from dgasr.transcriber import Transcriber


MOST_SEGMENTS = 4096
"""Segments at once, at most: a number beyond is a slip, and would keep a processor busy for hours with padding."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineConfig:
    """Which model transcribes, and how; small enough to travel between tasks.

    Attributes:
        model: `tiny`, `full` or a model folder.
        adapter: projector and LoRA to put on the model, or `None` for none.
        merge_adapter: add the adapter's LoRA into the weights: faster, 4 % more of them, rounded otherwise.
        compile: let torch compile the decoder: a wait at first, then faster steps, rounded otherwise.
        quantize: `none`, or `int8`: the backbone's matrices in 8 bits, half the memory.
        device: `auto`, `cpu`, `cuda` or, of several GPUs, `cuda:1`.
        max_steps: most denoising steps for a segment.
        batch_size: segments decoded at once; 0 for as many as the device's free memory holds.
        language: language that is spoken, or `None` for the model's own.
        seed_canvas: what canvases start from, `random` tokens or what `ctc` hears.
        rescore: `joint` takes CTC's text where two likelihoods prefer it to the decoder's; `none` never.
        segmentation: what tells pauses, a `speech` model or `loudness` alone.
        channels: `mix` of all, a transcript of `each`, or the number of one, from 0.
        track: `auto` for the audio track with most sound, a transcript of `each`, or the number of one, from 0.
        limits: what a file may take before it is rejected.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    model: str = "tiny"
    adapter: str | None = None
    merge_adapter: bool = False
    compile: bool = False
    quantize: Quantize = "none"
    device: str = "auto"
    max_steps: int = 8
    batch_size: int = 16
    language: str | None = None
    seed_canvas: SeedCanvas = SEED_CANVAS
    rescore: Rescore = RESCORE
    segmentation: SegmentationMethod = SEGMENTATION
    channels: Channels = "mix"
    track: Track = "auto"
    limits: Limits = field(default_factory=Limits)

    @property
    def audio(self) -> AudioConfig:
        """How audio is read."""
        return AudioConfig(channels=self.channels, track=self.track, limits=self.limits)

    def __post_init__(self) -> None:
        """Refuse numbers with which nothing is decoded, and devices that are none."""
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ConfigError(f"--device {self.device}: choose auto, cpu, cuda or cuda:N.")
        _ = self.audio  # refuses channels and tracks that none has
        if self.max_steps < 1 or self.batch_size < 0:
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
    """Where the model runs, `cpu` or `cuda:0`."""


def recipe_of(config: EngineConfig) -> Recipe:
    """Name the recipe that an engine would follow, without loading it.

    Raises:
        ConfigError: no such model, adapter or language.
    """
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
    """Load the model, or return the one that this process has loaded.

    Raises:
        ConfigError: no such model, adapter, device or language.
    """
    # torch takes seconds to import, and who only plans or reads audio never needs it.
    from dgasr.transcriber import Transcriber
    from dgasr.transcriber.memory import fitting_batch_size

    model = load_model(config)
    recipe = _recipe(model.config, model.identity, config)
    device = str(model.device)
    batch_size = config.batch_size or fitting_batch_size(model, recipe)
    transcriber = Transcriber(model, recipe, batch_size)
    return Engine(recipe=recipe, transcriber=transcriber, device=device)


def load_model(config: EngineConfig) -> "AsrModel":
    """Load the model that an engine decodes with, as its settings say.

    Raises:
        ConfigError: no such model, adapter or device.
    """
    from dgasr.transcriber import load

    return load(
        config.model,
        adapter=config.adapter,
        device=config.device,
        merge_adapter=config.merge_adapter,
        compiled=config.compile,
        quantize=config.quantize,
    )


def _recipe(model: AsrConfig, identity: ModelIdentity, config: EngineConfig) -> Recipe:
    return build_recipe(
        model, identity, max_steps=config.max_steps, language=config.language, seed_canvas=config.seed_canvas,
        rescore=config.rescore, segmentation=config.segmentation, audio=config.audio,
    )  # fmt: skip
