"""What the decoder sees in training: clean canvases noised at random, and canvases that it has denoised itself.

At inference the decoder meets its own mistakes: words doubled, or a place too far to the right. Noise that keeps every
surviving token in its place never shows it such a canvas, so part of the rows take steps of real decoding first.
"""

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from dgasr.diffusion import DecodeConfig
from dgasr.diffusion.sampler import accept_positions
from dgasr.diffusion.vocabulary import CanvasStatistics, VocabularyHead, num_chunks, read_vocabulary
from dgasr.errors import ConfigError
from dgasr.model.asr import AsrModel
from dgasr.records import settings


@settings
class CanvasNoiseConfig:
    """How canvases are noised, as shares of the rows.

    full_noise: rows whose every token is replaced; in the others each row has a rate of its own.
    self_conditioning: rows that get the soft embeddings of a first look at their canvas.
    own_steps: rows that go on from the canvas that decoding steps of their own have led to.
    max_own_steps: such steps, at most; each batch draws a number from 1.
    draws: differently noised canvases of each row; they share the encoders' work, which costs more than the decoder's.
    """

    full_noise: float = 0.25
    self_conditioning: float = 0.5
    own_steps: float = 0.0
    max_own_steps: int = 3
    draws: int = 1

    def __post_init__(self) -> None:
        if not all(0 <= share <= 1 for share in (self.full_noise, self.self_conditioning, self.own_steps)):
            raise ConfigError(f"canvas noise: shares must lie in [0, 1], got {self}.")
        if min(self.max_own_steps, self.draws) < 1:
            raise ConfigError(f"canvas noise: max_own_steps and draws must be at least 1, got {self}.")


@torch.no_grad()
def noised_canvas(
    model: AsrModel, clean: Tensor, cache: DynamicCache, config: CanvasNoiseConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Make what the decoder is to denoise of clean canvases: text, end of text, pads.  [batch, canvas]

    The cache is of the prompts; all noise comes from the generator, on the CPU. Returns token ids [batch, canvas], and
    soft embeddings, zero in rows without [batch, canvas, hidden].

    Source:
        Self-conditioning: Chen et al. 2022 (arXiv 2208.04202), on half of the rows; own steps: ours, after scheduled
        sampling (Bengio et al. 2015).
    """
    rows = clean.shape[0]
    ids = _at_random_rates(model, clean, config.full_noise, generator)
    signal = (torch.rand(rows, generator=generator) < config.self_conditioning).to(clean.device)
    found = _look(model, ids, None, cache, generator)
    soft = found.soft_embeddings * signal[:, None, None]
    if config.own_steps > 0:
        own = (torch.rand(rows, generator=generator) < config.own_steps).to(clean.device)
        num_steps = int(torch.randint(1, config.max_own_steps + 1, (), generator=generator))
        own_ids, own_soft = _own_steps(model, found, cache, num_steps, generator)
        ids = torch.where(own[:, None], own_ids, ids)
        soft = torch.where(own[:, None, None], own_soft, soft)
    return ids, soft


def _at_random_rates(model: AsrModel, clean: Tensor, full_noise: float, generator: torch.Generator) -> Tensor:
    """Replace tokens by uniform ones at a rate of each row's own.  [batch, canvas]"""
    rate = torch.rand(clean.shape[0], 1, generator=generator)
    rate = torch.where(torch.rand(clean.shape[0], 1, generator=generator) < full_noise, 1.0, rate)
    replaced = (torch.rand(clean.shape, generator=generator) < rate).to(clean.device)
    return torch.where(replaced, _random_ids(model, clean, generator), clean)


def _own_steps(
    model: AsrModel, found: CanvasStatistics, cache: DynamicCache, num_steps: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Accept and renoise as the decoder does, after the first look and after each one that follows."""
    bound = DecodeConfig().entropy_bound
    for step in range(num_steps):
        accepted = accept_positions(found.entropy, bound)
        ids = torch.where(accepted, found.sampled_ids, _random_ids(model, found.sampled_ids, generator))
        soft = found.soft_embeddings
        if step + 1 < num_steps:
            found = _look(model, ids, soft, cache, generator)
    return ids, soft


def _look(
    model: AsrModel, ids: Tensor, soft: Tensor | None, cache: DynamicCache, generator: torch.Generator
) -> CanvasStatistics:
    """Run the decoder once and read its distributions at a temperature of the decoder's own range."""
    settings = DecodeConfig()
    head = VocabularyHead(weight=model.head_weight, softcap=model.config.softcap, embed_scale=model.embed_scale)
    rows, canvas = ids.shape
    temperature = settings.t_min + (settings.t_max - settings.t_min) * torch.rand(rows, generator=generator)
    chunks = num_chunks(head.vocab_size, settings.vocabulary_chunk)
    uniforms = torch.rand(rows, canvas, chunks, 3, generator=generator, dtype=torch.float64)
    return read_vocabulary(
        model.decode(ids, soft, cache),
        head,
        temperature.to(ids.device),
        uniforms.to(ids.device),
        settings.vocabulary_chunk,
    )


def _random_ids(model: AsrModel, like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randint(model.head_weight.shape[0], like.shape, generator=generator).to(like.device)
