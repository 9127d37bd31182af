"""The decisions of one denoising step: temperature, which positions to accept, when a canvas is settled.

In: statistics of the predicted tokens. Out: masks. Knows nothing of networks, vocabularies or batches that change.
"""

import torch
from torch import Tensor

from dgasr.diffusion.config import DecodeConfig


def temperature_at(steps: Tensor, config: DecodeConfig) -> Tensor:
    """Return the temperature of each row's next step.

    Args:
        steps: steps each row has done, in [0, max_steps).  [rows]
        config: schedule.

    Returns:
        Temperatures, falling linearly from `first_temperature` towards `t_min`.  [rows] float32

    Source:
        transformers' LinearTemperatureScheduleLogitsProcessor, whose step counts down.
    """
    remaining = (config.max_steps - steps) / config.max_steps  # [rows]
    return config.t_min + (config.first_temperature - config.t_min) * remaining


def accept_positions(entropy: Tensor, entropy_bound: float) -> Tensor:
    """Choose the positions whose sampled tokens are kept.

    Args:
        entropy: of each position, nats.  [rows, canvas]
        entropy_bound: positions are taken, lowest entropy first, while the entropies taken before sum to at most this;
            so at least one is always taken.

    Returns:
        True where the sample is accepted; of equal entropies the earlier position comes first.  [rows, canvas] bool

    Source:
        Entropy-bounded sampling, Ben-Hamu et al. 2025 (arXiv 2505.24857); transformers' EntropyBoundSampler, with a
        sort that is stable on every device.
    """
    ascending, order = entropy.sort(dim=-1, stable=True)
    taken = ascending.cumsum(dim=-1) - ascending <= entropy_bound
    return torch.zeros_like(taken).scatter(-1, order, taken)


def is_settled(argmax_ids: Tensor, history: Tensor, entropy: Tensor, config: DecodeConfig) -> Tensor:
    """Say which canvases are done.

    Args:
        argmax_ids: likeliest tokens of this step.  [rows, canvas]
        history: likeliest tokens of the steps before, -1 where there was none.  [rows, stability_threshold, canvas]
        entropy: of each position, nats.  [rows, canvas]
        config: thresholds.

    Returns:
        True where the canvas equals its whole history and its mean entropy is below the threshold.  [rows] bool

    Source:
        transformers' StableAndConfidentStoppingCriteria.
    """
    is_stable = (history == argmax_ids[:, None, :]).flatten(1).all(dim=1)
    return is_stable & (entropy.mean(dim=-1) < config.confidence_threshold)
