"""Training: what one run does and where it writes, as plain settings; `run.py` carries it out."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dgasr.errors import ConfigError
from dgasr.records import settings
from dgasr.training.augmentation import AugmentationConfig
from dgasr.training.batches import BatchConfig
from dgasr.training.objective import CanvasNoiseConfig, LossWeights

PARTS = ("encoder", "projector", "backbone", "lora")
"""What a run can train or freeze."""

Precision = Literal["fp32", "bf16"]
"""What float32 weights are multiplied in; frozen bfloat16 weights are multiplied in bfloat16 either way."""


@settings
class TrainConfig:
    """What a run learns, and how: two runs of the same settings and data end with the same weights.

    steps: optimizer steps; a linear warm-up of `warmup_steps` and then a cosine lead to and from `learning_rate`.
    final_share: learning rate at the end, as a share of the peak.
    train: parts that learn; all others are frozen.
    noise: what the diffusion loss denoises.
    augmentation: how hard audio becomes at strength 1.
    strength: augmentation strength at the first and the last step.
    grad_accumulation: batches per optimizer step, of all processes together.
    weight_decay, betas, clip_norm: of AdamW and of the gradient's norm.
    patience: validations without a better loss after which the run ends; 0 goes on.
    gradient_checkpointing: compute the feed-forward layers again in the backward pass: less memory, more time.
    seed: of batches, augmentation and canvas noise.
    """

    steps: int
    learning_rate: float
    final_share: float = 0.02
    warmup_steps: int = 50
    train: tuple[str, ...] = ("projector", "lora")
    losses: LossWeights = field(default_factory=LossWeights)
    noise: CanvasNoiseConfig = field(default_factory=CanvasNoiseConfig)
    batches: BatchConfig = field(default_factory=BatchConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    strength: tuple[float, float] = (1.0, 1.0)
    grad_accumulation: int = 1
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    clip_norm: float = 2.0
    patience: int = 0
    precision: Precision = "fp32"
    gradient_checkpointing: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.learning_rate <= 0 or self.grad_accumulation < 1:
            raise ConfigError(f"training needs steps, learning_rate and grad_accumulation above 0, got {self}.")
        unknown = set(self.train) - set(PARTS)
        if unknown or not self.train:
            raise ConfigError(f"train: {sorted(unknown) or 'nothing'} is not among {', '.join(PARTS)}.")

    @property
    def num_batches(self) -> int:
        """Batches of the whole run."""
        return self.steps * self.grad_accumulation


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Where a run writes, and what does not change what it learns.

    out: its folder: `final`, `best`, `checkpoints`, `metrics.jsonl`, `samples.jsonl`, `tensorboard`.
    base: name of the model that it begins from, as commands take it; kept with the settings.
    checkpoint_steps, validation_steps: between two checkpoints, and two looks at the validation utterances.
    workers: processes that make batches; 0 makes them between the steps.
    is_half: write the final weights of a whole model in float16.
    """

    out: Path
    base: str = "tiny"
    checkpoint_steps: int = 250
    validation_steps: int = 250
    workers: int = 1
    is_half: bool = True
    shows_progress: bool = False
