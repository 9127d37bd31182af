"""The three losses of one batch: diffusion, autoregressive, CTC, and the frame labels where word times are known.

Knows the model and the exact losses, not how batches are made or weights are updated.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from dgasr.errors import ConfigError
from dgasr.model.asr import AsrModel
from dgasr.training.batches import IGNORED, Batch
from dgasr.training.losses import cross_entropy, ctc

VOCABULARY_CHUNK = 8192
"""Vocabulary rows held at a time by the losses."""

SELF_CONDITIONING_TEMPERATURE = (0.4, 0.8)
"""Where the decoder's schedule runs at inference; training draws from the same range."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LossWeights:
    """What each loss counts; a loss of weight 0 is not computed.

    diffusion: predicting the clean canvas from a noised one.
    autoregressive: predicting each token from those before it, through the causal encoder.
    ctc: connectionist temporal classification of the audio embeddings through the language head.
    frame: cross-entropy of audio embeddings whose word is known from word times.
    pad: what a canvas position after the end of text counts in the diffusion loss, of 1.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    diffusion: float = 1.0
    autoregressive: float = 1.0
    ctc: float = 1.0
    frame: float = 0.0
    pad: float = 0.2

    def __post_init__(self) -> None:
        if min(self.diffusion, self.autoregressive, self.ctc, self.frame, self.pad) < 0:
            raise ConfigError(f"loss weights must not be negative, got {self}.")

    @property
    def needs_backbone(self) -> bool:
        """Whether any loss goes through DiffusionGemma's layers."""
        return self.diffusion > 0 or self.autoregressive > 0


def batch_losses(
    model: AsrModel, batch: Batch, prompt_ids: Tensor, weights: LossWeights, generator: torch.Generator
) -> dict[str, Tensor]:
    """Compute the losses of one batch.

    Args:
        model: in train or eval mode.
        batch: from `Batches`, on the model's device.
        prompt_ids: the prompt with its audio slots.  [prompt]
        weights: which losses to compute.
        generator: source of canvas noise, on the CPU.

    Returns:
        The computed losses by their names in `LossWeights`, each a mean in nats; and `total`, weighted.
    """
    audio = model.projector(model.encode_audio(batch.log_mel))  # [batch, audio tokens, hidden]
    losses: dict[str, Tensor] = {}
    if weights.ctc:
        losses["ctc"] = _ctc(model, audio, batch)
    if weights.frame:
        losses["frame"] = _frame(model, audio, batch)
    if weights.needs_backbone:
        losses |= _backbone_losses(model, audio, batch, prompt_ids, weights, generator)
    losses["total"] = torch.stack([getattr(weights, name) * loss for name, loss in losses.items()]).sum()
    return losses


def _ctc(model: AsrModel, audio: Tensor, batch: Batch) -> Tensor:
    frames = torch.full_like(batch.text_lengths, audio.shape[1])
    loss = ctc(
        audio, model.head_weight, batch.canvas[:, :-1], batch.text_lengths, frames, blank=model.config.blank_id,
        blank_bias=model.config.blank_bias, softcap=model.config.softcap, chunk=VOCABULARY_CHUNK,
    )  # fmt: skip
    return (loss.nll / batch.text_lengths.clamp(min=1)).sum() / loss.feasible.sum().clamp(min=1)


def _frame(model: AsrModel, audio: Tensor, batch: Batch) -> Tensor:
    labelled = batch.frame_labels != IGNORED
    bias = (model.config.blank_id, model.config.blank_bias)
    nll = cross_entropy(
        audio[labelled], model.head_weight, batch.frame_labels[labelled], model.config.softcap, VOCABULARY_CHUNK, bias
    )
    return nll.sum() / labelled.sum().clamp(min=1)


def _backbone_losses(
    model: AsrModel, audio: Tensor, batch: Batch, prompt_ids: Tensor, weights: LossWeights, generator: torch.Generator
) -> dict[str, Tensor]:
    """One encoder pass over prompt and target serves both: causal, so cropping the cache gives back the prompt's."""
    embeddings = model.prompt_embeddings(prompt_ids, audio)
    end = batch.text_lengths.unsqueeze(1)
    positions = torch.arange(batch.canvas.shape[1], device=end.device)
    losses: dict[str, Tensor] = {}
    if weights.autoregressive:
        target = model.backbone.model.encoder.get_input_embeddings()(batch.canvas[:, :-1])
        states, cache = model.prefill(torch.cat([embeddings, target], dim=1))
        states = states[:, embeddings.shape[1] - 1 :]  # [batch, canvas, hidden]: each predicts the token after it
        counted = positions <= end
        nll = _head_loss(model, states[counted], batch.canvas[counted])
        losses["autoregressive"] = nll.mean()
        cache.crop(-target.shape[1])
    else:
        _, cache = model.prefill(embeddings)
    if weights.diffusion:
        noised, has_signal = _noised(batch.canvas, model.head_weight.shape[0], generator)
        soft = _self_conditioning(model, noised, cache, generator) * has_signal[:, None, None]
        states = model.decode(noised, soft, cache)
        nll = _head_loss(model, states.flatten(0, 1), batch.canvas.flatten()).view(batch.canvas.shape)
        share = torch.where(positions <= end, 1.0, weights.pad)
        losses["diffusion"] = (nll * share).sum() / share.sum()
    return losses


def _head_loss(model: AsrModel, states: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(states, model.head_weight, targets, model.config.softcap, VOCABULARY_CHUNK)


def _noised(canvas: Tensor, vocabulary: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Replace tokens by uniform ones at a rate of each row's own, all of them in a quarter of the rows.

    Returns:
        The noised canvas [batch, canvas], and which rows get a self-conditioning signal: half of them [batch].
    """
    batch, length = canvas.shape
    rate = torch.rand(batch, 1, generator=generator)
    rate = torch.where(torch.rand(batch, 1, generator=generator) < 0.25, 1.0, rate)
    replaced = torch.rand(batch, length, generator=generator) < rate
    noise = torch.randint(vocabulary, (batch, length), generator=generator)
    has_signal = torch.rand(batch, generator=generator) < 0.5
    return torch.where(replaced.to(canvas.device), noise.to(canvas.device), canvas), has_signal.to(canvas.device)


@torch.no_grad()
def _self_conditioning(model: AsrModel, noised: Tensor, cache: DynamicCache, generator: torch.Generator) -> Tensor:
    """Soft embeddings of a first look at the canvas.  [batch, canvas, hidden]"""
    low, high = SELF_CONDITIONING_TEMPERATURE
    temperature = low + (high - low) * torch.rand((), generator=generator).item()
    states = model.decode(noised, None, cache)
    logits = model.config.softcap * torch.tanh(states @ model.head_weight.T / model.config.softcap)
    return (logits / temperature).softmax(dim=-1) @ model.head_weight * model.embed_scale
