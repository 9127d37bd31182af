"""The language head as CTC reads it: audio embeddings in, log-probabilities of labels and of whole texts out.

The blank is one id of the vocabulary with a constant on its logit. What the embeddings were made of, and who looked at
the whole vocabulary for their log-partition, is not known here.
"""

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dgasr.model.asr import AsrModel
from dgasr.model.head import Bias, label_logits
from dgasr.model.presets import AsrConfig

IMPOSSIBLE = -1e4
"""Log-likelihood that stands for none at all, nats: finite, so that other shifts still have a say."""


def blank_bias(config: AsrConfig) -> Bias:
    """Return the id of the CTC blank, and the constant on its logit."""
    return config.blank_id, config.blank_bias


@torch.no_grad()
def label_log_probs(model: AsrModel, states: Tensor, log_partition: Tensor, labels: Sequence[int]) -> np.ndarray:
    """Compute what alignment needs: CTC log-probabilities of the blank and of each label in turn.

    Args:
        model: gives the head.
        states: audio embeddings.  [frames, hidden]
        log_partition: of these over the whole vocabulary, with `blank_bias`.  [frames]
        labels: vocabulary ids of a text, without blanks.

    Returns:
        Natural logarithms, float32.  [frames, 1 + labels]
    """
    columns = torch.tensor([model.config.blank_id, *labels], device=states.device)
    return _log_probs(model, states, log_partition, columns).cpu().numpy()


class TextsToScore(NamedTuple):
    """Texts of one segment whose likelihood is wanted."""

    states: Tensor
    """Audio embeddings every 20 ms, whole strides of the projector's grid.  [frames, hidden]"""
    log_partition: Tensor
    """Of these over the whole vocabulary, with `blank_bias`.  [frames]"""
    texts: Sequence[Sequence[int]]
    """Vocabulary ids, without blanks; as many texts as one likes."""


@torch.no_grad()
def text_log_likelihoods(model: AsrModel, segments: Sequence[TextsToScore]) -> list[list[float]]:
    """Compute how likely CTC finds texts: the log-likelihood over all paths, the mean of the projector's shifts.

    Args:
        model: gives the head.
        segments: scored together, so that a device is waited for once for all; none depends on the others.

    Returns:
        For each text of each segment nats, at least `IMPOSSIBLE`: what a shift gives to a text that its embeddings are
        too few for.

    Source:
        Graves et al. 2006, section 4.1, by torch's own loss; the mean over shifts is ours.
    """
    scored = [segment for segment in segments if segment.texts]
    found = iter(_mean_over_shifts(model, scored) if scored else [])
    return [list(islice(found, len(segment.texts))) for segment in segments]


def _mean_over_shifts(model: AsrModel, segments: Sequence[TextsToScore]) -> list[float]:
    """Score all texts of all segments, one after the other."""
    num_shifts = model.config.projector.subsampling
    labels = [sorted({label for text in segment.texts for label in text}) for segment in segments]
    columns = torch.tensor([label for own in labels for label in (model.config.blank_id, *own)], device=model.device)
    log_probs = [
        _log_probs(model, segment.states, segment.log_partition, own).unflatten(0, (-1, num_shifts))
        for segment, own in zip(segments, columns.split([1 + len(own) for own in labels]), strict=True)
    ]  # [audio tokens, shifts, 1 + labels] each
    targets = [
        [1 + own.index(label) for label in text]
        for segment, own in zip(segments, labels, strict=True)
        for text in segment.texts
    ]
    num_texts = [len(segment.texts) for segment in segments]
    num_tokens = [len(own) for own, count in zip(log_probs, num_texts, strict=True) for _ in range(count)]
    nll = F.ctc_loss(
        _side_by_side(log_probs, num_texts),
        _filled_up(targets).to(model.device).repeat_interleave(num_shifts, dim=0),
        torch.tensor(num_tokens).repeat_interleave(num_shifts),
        torch.tensor([len(target) for target in targets]).repeat_interleave(num_shifts),
        reduction="none",
    )
    return (-nll).clamp(min=IMPOSSIBLE).view(-1, num_shifts).mean(dim=1).tolist()


def _side_by_side(log_probs: Sequence[Tensor], num_texts: Sequence[int]) -> Tensor:
    """Lay segments out, each as often as it has texts; the zeros that fill them up are never read.

    Returns:
        Log-probabilities.  [audio tokens, texts · shifts, 1 + labels]
    """
    longest, widest = max(map(len, log_probs)), max(own.shape[2] for own in log_probs)
    filled = [F.pad(own, (0, widest - own.shape[2], 0, 0, 0, longest - len(own))) for own in log_probs]
    return torch.cat([own.repeat(1, count, 1) for own, count in zip(filled, num_texts, strict=True)], dim=1)


def _filled_up(targets: Sequence[Sequence[int]]) -> Tensor:
    width = max(1, *map(len, targets))
    return torch.tensor([[*target, *[0] * (width - len(target))] for target in targets])


def _log_probs(model: AsrModel, states: Tensor, log_partition: Tensor, columns: Tensor) -> Tensor:
    """Read a few vocabulary entries off embeddings.  [frames, columns]"""
    logits = label_logits(states, model.head_weight, columns, model.config.softcap, blank_bias(model.config))
    return logits - log_partition.unsqueeze(-1)
