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
from dgasr.model.ctc_head import blank_bias
from dgasr.training.batches import IGNORED, Batch
from dgasr.training.canvas_noise import CanvasNoiseConfig, noised_canvas
from dgasr.training.losses import cross_entropy, ctc

VOCABULARY_CHUNK = 8192
"""Vocabulary rows held at a time by the losses."""


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
    model: AsrModel,
    batch: Batch,
    prompt_ids: Tensor,
    weights: LossWeights,
    noise: CanvasNoiseConfig,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Compute the losses of one batch.

    Args:
        model: in train or eval mode.
        batch: from `Batches`, on the model's device.
        prompt_ids: the prompt with its audio slots.  [prompt]
        weights: which losses to compute.
        noise: what the diffusion loss denoises.
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
        losses |= backbone_losses(model, audio, batch, prompt_ids, weights, noise, generator)
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
    nll = cross_entropy(
        audio[labelled], model.head_weight, batch.frame_labels[labelled], model.config.softcap, VOCABULARY_CHUNK,
        blank_bias(model.config),
    )  # fmt: skip
    return nll.sum() / labelled.sum().clamp(min=1)


def backbone_losses(
    model: AsrModel,
    audio: Tensor,
    batch: Batch,
    prompt_ids: Tensor,
    weights: LossWeights,
    noise: CanvasNoiseConfig,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Compute the losses that go through the backbone, given the audio embeddings.

    One encoder pass over prompt and target serves both: causal, so cropping the cache gives back the prompt's.

    Args:
        model: in train or eval mode.
        audio: audio embeddings.  [batch, audio tokens, hidden]
        batch: its canvases and text lengths.
        prompt_ids: the prompt with its audio slots.  [prompt]
        weights: which losses to compute.
        noise: what the diffusion loss denoises.
        generator: source of canvas noise, on the CPU.

    Returns:
        The computed losses by their names in `LossWeights`.
    """
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
        losses["diffusion"] = _diffusion(model, batch, cache, weights.pad, noise, generator)
    return losses


def _diffusion(
    model: AsrModel, batch: Batch, cache: DynamicCache, pad: float, noise: CanvasNoiseConfig, generator: torch.Generator
) -> Tensor:
    """Predict clean canvases from noised ones, several of each row."""
    cache.batch_repeat_interleave(noise.draws)
    canvas = batch.canvas.repeat_interleave(noise.draws, dim=0)  # [batch * draws, canvas]
    end = batch.text_lengths.repeat_interleave(noise.draws).unsqueeze(1)
    noised, soft = noised_canvas(model, canvas, cache, noise, generator)
    states = model.decode(noised, soft, cache)
    nll = _head_loss(model, states.flatten(0, 1), canvas.flatten()).view(canvas.shape)
    share = torch.where(torch.arange(canvas.shape[1], device=end.device) <= end, 1.0, pad)
    return (nll * share).sum() / share.sum()


def _head_loss(model: AsrModel, states: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(states, model.head_weight, targets, model.config.softcap, VOCABULARY_CHUNK)
