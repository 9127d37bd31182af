"""What a training run does: phases one after the other, each with its own losses, learning rate and trainable parts.

Plain settings and their JSON; knows no tensors. `tools/tiny/plan.json` is the bundled model's.
"""

import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from dgasr.errors import ConfigError
from dgasr.training.augmentation import AugmentationConfig
from dgasr.training.canvas_noise import CanvasNoiseConfig
from dgasr.training.examples import BatchConfig
from dgasr.training.objective import LossWeights

PARTS = ("encoder", "projector", "backbone", "lora")
"""What a phase can train or freeze."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """One stretch of training with its own optimizer.

    steps: optimizer steps.
    learning_rate: peak; a linear warm-up leads to it and a cosine away from it.
    final_share: learning rate at the phase's end, as a share of the peak.
    warmup_steps: length of the warm-up.
    train: parts that learn; all others are frozen.
    losses: weights of the losses.
    noise: what the diffusion loss denoises.
    batches: how rows are put together.
    strength: augmentation strength at the phase's first and last step.
    dropout: share of the audio encoder's activations that each step leaves out.
    grad_accumulation: batches per optimizer step.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    steps: int
    learning_rate: float
    final_share: float = 0.02
    warmup_steps: int = 50
    train: tuple[str, ...] = ("projector", "lora")
    losses: LossWeights = field(default_factory=LossWeights)
    noise: CanvasNoiseConfig = field(default_factory=CanvasNoiseConfig)
    batches: BatchConfig = field(default_factory=BatchConfig)
    strength: tuple[float, float] = (1.0, 1.0)
    dropout: float = 0.0
    grad_accumulation: int = 1

    def __post_init__(self) -> None:
        if self.steps < 1 or self.learning_rate <= 0 or self.grad_accumulation < 1:
            raise ConfigError(f"a phase needs steps, learning_rate and grad_accumulation above 0, got {self}.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"a phase's dropout must lie in [0, 1), got {self.dropout}.")
        unknown = set(self.train) - set(PARTS)
        if unknown or not self.train:
            raise ConfigError(f"train: {sorted(unknown) or 'nothing'} is not among {', '.join(PARTS)}.")

    def learning_rate_at(self, step: int) -> float:
        """Give the learning rate of a step of this phase, counted from 0."""
        if step < self.warmup_steps:
            return self.learning_rate * ((step + 1) / self.warmup_steps)
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        return self.learning_rate * (self.final_share + (1 - self.final_share) * cosine)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A whole training run, less its data.

    phases: in order.
    augmentation: how hard audio becomes at strength 1.
    weight_decay, betas, clip_norm: of AdamW and of the gradient's norm.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    phases: tuple[Phase, ...]
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    clip_norm: float = 2.0

    def __post_init__(self) -> None:
        if not self.phases:
            raise ConfigError("a training plan needs at least one phase.")

    @property
    def total_steps(self) -> int:
        """Optimizer steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def shortened(self, share: float) -> "Plan":
        """The same plan with a share of every phase's steps, in (0, 1].

        Raises:
            ConfigError: the share lies outside.
        """
        if not 0 < share <= 1:
            raise ConfigError(f"a plan can be shortened to a share in (0, 1] of its steps, got {share:g}.")
        return replace(
            self, phases=tuple(replace(phase, steps=max(1, round(phase.steps * share))) for phase in self.phases)
        )

    def to_json(self) -> str:
        """Write as JSON that `read_plan` reads."""
        return json.dumps(asdict(self), indent=2)


def read_plan(path: Path) -> Plan:
    """Read a plan.

    Raises:
        ConfigError: the file is missing, not JSON, or has a field that does not exist.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        phases = tuple(_phase(phase) for phase in fields.pop("phases"))
        augmentation = AugmentationConfig(**_tuples(fields.pop("augmentation", {})))
        return Plan(phases=phases, augmentation=augmentation, **_tuples(fields))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: not a training plan ({error}). See tools/tiny/plan.json for one.") from error


def _phase(fields: dict[str, Any]) -> Phase:
    losses = LossWeights(**fields.pop("losses", {}))
    noise = CanvasNoiseConfig(**fields.pop("noise", {}))
    batches = BatchConfig(**_tuples(fields.pop("batches", {})))
    return Phase(losses=losses, noise=noise, batches=batches, **_tuples(fields))


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
