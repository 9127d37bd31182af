"""The three losses of one batch: diffusion, autoregressive, CTC, and the frame labels where word times are known.

Cross-entropy and CTC go through the vocabulary head, exactly, and never hold `[batch, frames, vocab]`: a
log-probability is split into the logit of the target, of which few are needed, and the log-partition, which
`model.head` streams. Does not know how batches are made or weights are updated.

The decoder sees clean canvases noised at random, and canvases that it has denoised itself. At inference it meets its
own mistakes: words doubled, or a place too far to the right. Noise that keeps every surviving token in its place never
shows it such a canvas, so part of the rows take steps of real decoding first.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import DynamicCache

from dgasr.diffusion import DecodeConfig
from dgasr.diffusion.sampler import accept_positions
from dgasr.diffusion.vocabulary import CanvasStatistics, VocabularyHead, num_chunks, read_vocabulary
from dgasr.errors import ConfigError
from dgasr.model.asr import AsrModel
from dgasr.model.head import Bias, label_logits, log_partition
from dgasr.records import settings
from dgasr.training.batches import IGNORED, Batch


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


VOCABULARY_CHUNK = 8192
"""Vocabulary rows held at a time by the losses."""


class CtcLoss(NamedTuple):
    """The CTC losses of a batch, and which of them mean something."""

    nll: Tensor
    """Negative log-likelihood in nats; 0 with no gradient where `feasible` is false.  [batch]"""
    feasible: Tensor
    """False where the labels, with a blank between equal neighbours, need more frames than there are.  [batch]"""


def cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float, chunk: int, bias: Bias | None = None
) -> Tensor:
    """Compute the negative log-likelihood of one target id per row, nats, float32.  [n]

    Of `hidden` [n, hidden] and `targets` [n]; the other arguments are as in `log_partition`.
    """
    logits = label_logits(hidden.unsqueeze(1), weight, targets.unsqueeze(1), softcap, bias)  # [n, 1, 1]
    return log_partition(hidden, weight, softcap, chunk, bias) - logits[:, 0, 0]


def ctc(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    label_lengths: Tensor,
    frame_lengths: Tensor,
    *,
    blank: int,
    blank_bias: float,
    softcap: float,
    chunk: int,
) -> CtcLoss:
    """Compute the exact CTC loss over the whole vocabulary from the logits of each row's own labels.

    Args:
        hidden: states before the head.  [batch, frames, hidden]
        weight: output embedding.  [vocab, hidden]
        labels: vocabulary ids without blanks; what lies past a row's length is ignored.  [batch, max_labels]
        label_lengths: number of labels; 0 means that the row is all blank.  [batch]
        frame_lengths: number of frames that count.  [batch]
        blank: vocabulary id of the blank.
        blank_bias: constant added to the blank's logit after the cap.
        softcap: bound of the logits' absolute value.
        chunk: vocabulary rows that are held at a time.

    Returns:
        The losses and which rows are feasible; a loss is differentiable in `hidden` and `weight`.

    Source:
        Graves et al. 2006. The gradient by way of occupancies γ: `d nll = Σ d logZ − Σ γ · d logit`; ours.
    """
    bias = (blank, blank_bias)
    if labels.shape[1] == 0:  # torch wants at least one column of labels, if only to ignore it
        labels = F.pad(labels, (0, 1), value=blank)
    columns, targets = _compact_labels(labels, label_lengths, blank)
    feasible = _fits(labels, label_lengths, frame_lengths)
    counted = torch.arange(hidden.shape[1], device=hidden.device) < (frame_lengths * feasible).unsqueeze(1)
    logits = label_logits(hidden, weight, columns, softcap, bias)  # [batch, frames, 1 + max_labels]
    total = log_partition(hidden, weight, softcap, chunk, bias)  # [batch, frames]
    nll, occupancy = _occupancies(logits - total.unsqueeze(-1), targets, label_lengths * feasible, frame_lengths)
    # This sum has another value than the loss but the same gradient: the occupancies count as constants in it.
    surrogate = (total * counted).sum(dim=1) - (logits * occupancy * counted.unsqueeze(-1)).sum(dim=(1, 2))
    return CtcLoss(nll * feasible + surrogate - surrogate.detach(), feasible)


def _compact_labels(labels: Tensor, label_lengths: Tensor, blank: int) -> tuple[Tensor, Tensor]:
    """Rename each row's labels to columns: 0 is the blank, k + 1 the label whose first position is k.

    The vocabulary id of every column [batch, 1 + max_labels]; the labels as columns [batch, max_labels].
    """
    present = torch.arange(labels.shape[1], device=labels.device) < label_lengths.unsqueeze(1)
    own = torch.where(present, labels, blank)
    # Equal labels must share one column, or CTC would let them merge without a blank between.
    first = (own.unsqueeze(2) == own.unsqueeze(1)).to(torch.uint8).argmax(dim=2)  # [batch, max_labels]
    return F.pad(own, (1, 0), value=blank), first + 1


def _fits(labels: Tensor, label_lengths: Tensor, frame_lengths: Tensor) -> Tensor:
    """Tell which rows `[batch]` have a frame for every label and for every blank between equal neighbours."""
    inside = torch.arange(1, labels.shape[1], device=labels.device) < label_lengths.unsqueeze(1)
    repeats = ((labels[:, 1:] == labels[:, :-1]) & inside).sum(dim=1)
    return (label_lengths + repeats <= frame_lengths) & (frame_lengths > 0)


def _occupancies(
    log_probs: Tensor, targets: Tensor, label_lengths: Tensor, frame_lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """Let torch's CTC find the losses [batch], and how much of each frame belongs to each column, γ.

    torch's gradient by log-probabilities is `exp(log_probs) − γ`, right only where the columns sum to one, which ours
    do not; γ itself is right in any case. Backpropagating that gradient would be wrong by half a per cent.
    γ is [batch, frames, 1 + max_labels]; neither is differentiable.
    """
    leaf = log_probs.detach().requires_grad_()
    with torch.enable_grad():
        by_time = leaf.transpose(0, 1)
        nll = F.ctc_loss(by_time, targets, frame_lengths.clamp(min=1), label_lengths, blank=0, reduction="none")
        (gradient,) = torch.autograd.grad(nll.sum(), leaf)
    return nll.detach(), leaf.detach().exp() - gradient


@settings
class LossWeights:
    """What each loss counts; a loss of weight 0 is not computed.

    diffusion: predicting the clean canvas from a noised one.
    autoregressive: predicting each token from those before it, through the causal encoder.
    ctc: connectionist temporal classification of the audio embeddings through the language head.
    frame: cross-entropy of audio embeddings whose word is known from word times.
    pad: what a canvas position after the end of text counts in the diffusion loss, of 1.
    """

    diffusion: float = 1.0
    autoregressive: float = 1.0
    ctc: float = 1.0
    frame: float = 0.0
    pad: float = 0.2

    def __post_init__(self) -> None:
        if min(self.diffusion, self.autoregressive, self.ctc, self.frame, self.pad) < 0:
            raise ConfigError(f"loss weights must not be negative, got {self}.")


def batch_losses(
    model: AsrModel,
    batch: Batch,
    prompt_ids: Tensor,
    weights: LossWeights,
    noise: CanvasNoiseConfig,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Compute the losses of one batch by their names in `LossWeights`, each a mean in nats; and `total`, weighted.

    The model may be in either mode, the batch on its device; `prompt_ids` is the prompt with its audio slots, [prompt];
    canvas noise comes from the generator, on the CPU.
    """
    audio = model.projector(model.encode_audio(batch.log_mel))  # [batch, audio tokens, hidden]
    losses: dict[str, Tensor] = {}
    if weights.ctc:
        losses["ctc"] = _ctc(model, audio, batch)
    if weights.frame:
        losses["frame"] = _frame(model, audio, batch)
    if weights.diffusion or weights.autoregressive:
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
        model.config.blank_logit,
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
    """Compute the losses that go through the backbone, given the audio embeddings, by their names in `LossWeights`.

    One encoder pass over prompt and target serves both: causal, so cropping the cache gives back the prompt's.
    `audio` are [batch, audio tokens, hidden]; the other arguments are as in `batch_losses`.
    """
    embeddings, numbered = model.prompt_embeddings(prompt_ids, audio), model.prompt_positions(prompt_ids, audio)
    end = batch.text_lengths.unsqueeze(1)
    positions = torch.arange(batch.canvas.shape[1], device=end.device)
    losses: dict[str, Tensor] = {}
    if weights.autoregressive:
        target = model.backbone.model.encoder.get_input_embeddings()(batch.canvas[:, :-1])
        behind = embeddings.shape[1] + positions[:-1].expand(len(numbered), -1)
        states, cache = model.prefill(
            torch.cat([embeddings, target], dim=1), positions=torch.cat([numbered, behind], dim=1)
        )
        states = states[:, embeddings.shape[1] - 1 :]  # [batch, canvas, hidden]: each predicts the token after it
        counted = positions <= end
        nll = _head_loss(model, states[counted], batch.canvas[counted])
        losses["autoregressive"] = nll.mean()
        cache.crop(-target.shape[1])
    else:
        _, cache = model.prefill(embeddings, positions=numbered)
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
