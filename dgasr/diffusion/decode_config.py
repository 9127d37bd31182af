"""Settings of the diffusion decoder. Torch-free, so that a recipe can be read and fingerprinted anywhere."""

from dgasr.errors import ConfigError
from dgasr.records import settings


@settings
class DecodeConfig:
    """How a canvas is denoised. Every field changes text, so every field is part of the recipe.

    max_steps: decoder calls a canvas gets at most; a settled canvas leaves earlier.
    entropy_bound: nats; positions are accepted, surest first, while the entropies before them sum to at most this.
    confidence_threshold: nats; a canvas is settled when its mean entropy is below this. 0 keeps every canvas for
        `max_steps`, which makes timings comparable.
    stability_threshold: steps for which a settled canvas has not changed.
    t_max: temperature before the first step; step n of N has `t_min + (t_max - t_min) * (N - n) / N`, n from 0.
    t_min: temperature that the schedule approaches after the last step.
    vocabulary_chunk: vocabulary entries held at a time; it also numbers the draws of a sample.

    Source:
        Defaults are the generation config of google/diffusiongemma-26B-A4B-it, except `max_steps` (there 48): the
        reference system's word error rate moves by 0.1 between 8 and 48.
    """

    max_steps: int = 8
    entropy_bound: float = 0.1
    confidence_threshold: float = 0.005
    stability_threshold: int = 1
    t_max: float = 0.8
    t_min: float = 0.4
    vocabulary_chunk: int = 8192

    def __post_init__(self) -> None:
        if self.max_steps < 1:
            raise ConfigError(f"max_steps is {self.max_steps}: a canvas gets 1 step or more.")
