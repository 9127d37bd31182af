"""Cross-entropy and CTC through the vocabulary head, exact, and never `[batch, frames, vocab]`.

Hidden states and targets in, a negative log-likelihood per token or per utterance out. Both split a log-probability
into the logit of the target, of which few are needed, and the log-partition, which `model.head` streams. What produced
the hidden states, and how the losses are weighted, is not known here.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dgasr.model.head import Bias, label_logits, log_partition


class CtcLoss(NamedTuple):
    """The CTC losses of a batch, and which of them mean something."""

    nll: Tensor
    """Negative log-likelihood in nats; 0 with no gradient where `feasible` is false.  [batch]"""
    feasible: Tensor
    """False where the labels, with a blank between equal neighbours, need more frames than there are.  [batch]"""


def cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float, chunk: int, bias: Bias | None = None
) -> Tensor:
    """Compute the negative log-likelihood of one target id per row.

    Args:
        hidden: states before the head.  [n, hidden]
        weight: output embedding.  [vocab, hidden]
        targets: vocabulary ids.  [n]
        softcap: bound of the logits' absolute value.
        chunk: vocabulary rows that are held at a time.
        bias: id and constant added to its logit, where the targets are CTC labels.

    Returns:
        Nats, float32.  [n]
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

    Returns:
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
    """Let torch's CTC find the losses and how much of each frame belongs to each column.

    torch's gradient by log-probabilities is `exp(log_probs) − γ`, right only where the columns sum to one, which ours
    do not; γ itself is right in any case. Backpropagating that gradient would be wrong by half a per cent.

    Returns:
        Losses [batch] and γ [batch, frames, 1 + max_labels], neither differentiable.
    """
    leaf = log_probs.detach().requires_grad_()
    with torch.enable_grad():
        by_time = leaf.transpose(0, 1)
        nll = F.ctc_loss(by_time, targets, frame_lengths.clamp(min=1), label_lengths, blank=0, reduction="none")
        (gradient,) = torch.autograd.grad(nll.sum(), leaf)
    return nll.detach(), leaf.detach().exp() - gradient
