"""A step of a batch of canvases of one fixed shape, each at its own step: what is accepted, and what is settled.

In: jobs of the rows that begin. Out: a mask of the rows that settled, and finished rows on demand. Shapes never
change, so that kernels and their summation order do not depend on how many rows are in use.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dgasr.device import upload
from dgasr.diffusion import CanvasJob, DecodeConfig
from dgasr.diffusion.noise import SegmentNoise, key_words
from dgasr.diffusion.vocabulary import (
    CanvasStatistics,
    VocabularyHead,
    choose_reader,
    num_chunks,
    read_vocabulary,
)

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(token ids [rows, canvas], soft embeddings [rows, canvas, hidden]) -> last hidden states [rows, canvas, hidden]. Soft
embeddings of zero mean that there was no step before."""


def temperature_at(steps: Tensor, config: DecodeConfig) -> Tensor:
    """Return the temperature of each row's next step, falling linearly from `t_max` towards `t_min`.

    Of the steps that each row has done, in [0, max_steps).  [rows] → [rows] float32

    Source:
        transformers' LinearTemperatureScheduleLogitsProcessor, whose step counts down.
    """
    remaining = (config.max_steps - steps) / config.max_steps  # [rows]
    return config.t_min + (config.t_max - config.t_min) * remaining


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


class CanvasRows:
    """State of the rows; the head's weight says on which device and in which type everything is kept."""

    def __init__(self, num_rows: int, canvas_tokens: int, head: VocabularyHead, config: DecodeConfig) -> None:
        weight = head.weight
        self.head = head
        self.config = config
        self.canvas_tokens = canvas_tokens
        last = torch.tensor(config.max_steps - 1)
        self._reader = choose_reader(head, float(temperature_at(last, config)))
        self.keys = torch.zeros(num_rows, 2, dtype=torch.int64, device=weight.device)
        self.steps = torch.zeros(num_rows, dtype=torch.int64, device=weight.device)
        self.ids = torch.zeros(num_rows, canvas_tokens, dtype=torch.int64, device=weight.device)
        self.soft_embeddings = weight.new_zeros(num_rows, canvas_tokens, weight.shape[1])
        self.history = self.ids.new_full((num_rows, config.stability_threshold, canvas_tokens), -1)
        self.statistics: CanvasStatistics | None = None

    def begin(self, rows: Sequence[int], jobs: Sequence[CanvasJob]) -> None:
        """Put rows at their first step, each with the noise key of its job."""
        chosen = upload(torch.tensor(rows), self.keys.device)
        self.keys[chosen] = key_words([job.noise_key for job in jobs], self.keys.device)
        self.steps[chosen] = 0
        noise = SegmentNoise(self.keys[chosen], self.steps[chosen])
        self.ids[chosen] = noise.initial_ids(self.canvas_tokens, self.head.vocab_size)
        self.soft_embeddings[chosen] = 0
        self.history[chosen] = -1

    def step(self, denoiser: Denoiser) -> Tensor:
        """Take one step in every row; `statistics` are this step's until the next one.

        Returns [rows] bool, true where the row is settled; rows out of use hold anything.
        """
        config, vocab_size = self.config, self.head.vocab_size
        noise = SegmentNoise(self.keys, self.steps)
        hidden = denoiser(self.ids, self.soft_embeddings)
        uniforms = noise.sample_uniforms(self.canvas_tokens, num_chunks(vocab_size, config.vocabulary_chunk))
        found = read_vocabulary(
            hidden, self.head, temperature_at(self.steps, config), uniforms, config.vocabulary_chunk, self._reader
        )
        accepted = accept_positions(found.entropy, config.entropy_bound)
        self.ids = torch.where(accepted, found.sampled_ids, noise.renoise_ids(self.canvas_tokens, vocab_size))
        settled = is_settled(found.argmax_ids, self.history, found.entropy, config)
        self.history = torch.cat([self.history, found.argmax_ids[:, None]], dim=1)[:, 1:]
        self.soft_embeddings = found.soft_embeddings
        # A row out of use goes on stepping; it must not run off the end of the temperature schedule.
        self.steps = (self.steps + 1).clamp(max=config.max_steps - 1)
        self.statistics = found
        return settled
