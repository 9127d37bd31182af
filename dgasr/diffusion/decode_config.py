"""Settings of the diffusion decoder. Torch-free, so that a recipe can be read and fingerprinted anywhere."""

from dataclasses import dataclass
from typing import Literal, get_args

from dgasr.errors import ConfigError

SeedCanvas = Literal["random", "ctc"]


@dataclass(frozen=True, kw_only=True, slots=True)
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
    seed_canvas: what a canvas starts from: `random` tokens, or `ctc`'s text, each token kept with its probability.
    seed_progress: share of the way from `t_max` to `t_min` that a seeded canvas, which is not all noise, has behind it.

    Source:
        Defaults are the generation config of google/diffusiongemma-26B-A4B-it, except `max_steps` (there 48): the
        reference system's word error rate moves by 0.1 between 8 and 48.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - pydantic reads it; an annotation would make it a field

    max_steps: int = 8
    entropy_bound: float = 0.1
    confidence_threshold: float = 0.005
    stability_threshold: int = 1
    t_max: float = 0.8
    t_min: float = 0.4
    vocabulary_chunk: int = 8192
    seed_canvas: SeedCanvas = "random"
    seed_progress: float = 0.5

    def __post_init__(self) -> None:
        checks = {
            "max_steps must be at least 1": self.max_steps >= 1,
            "entropy_bound must be greater than 0": self.entropy_bound > 0,
            "confidence_threshold must not be negative": self.confidence_threshold >= 0,
            "stability_threshold must not be negative": self.stability_threshold >= 0,
            "t_max must be greater than 0": self.t_max > 0,
            "t_min must lie in [0, t_max]": 0 <= self.t_min <= self.t_max,
            "vocabulary_chunk must be at least 1": self.vocabulary_chunk >= 1,
            "seed_progress must lie in [0, 1]": 0 <= self.seed_progress <= 1,
            "seed_canvas must be random or ctc": self.seed_canvas in get_args(SeedCanvas),
        }
        broken = [rule for rule, holds in checks.items() if not holds]
        if broken:
            raise ConfigError(f"DecodeConfig: {'; '.join(broken)} (got {self}). Correct the values and start again.")

    @property
    def first_temperature(self) -> float:
        """Temperature before the first step, by what a canvas starts from."""
        behind = self.seed_progress if self.seed_canvas == "ctc" else 0.0
        return self.t_max - behind * (self.t_max - self.t_min)
