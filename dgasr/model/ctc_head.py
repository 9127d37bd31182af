"""The language head as CTC reads it: audio embeddings in, log-probabilities of labels and of whole texts out.

The blank is one id of the vocabulary with a constant on its logit. What the embeddings were made of, and who looked at
the whole vocabulary for their log-partition, is not known here.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dgasr.device import upload
from dgasr.model.asr import AsrModel
from dgasr.model.head import label_logits

IMPOSSIBLE = -1e4
"""Log-likelihood that stands for none at all, nats: finite, so that other shifts still have a say."""


@torch.no_grad()
def label_log_probs(model: AsrModel, states: Tensor, log_partition: Tensor, labels: Tensor) -> Tensor:
    """Compute what alignment needs: CTC log-probabilities of the blank and of each label in turn, float32.

    Of audio embeddings [frames, hidden], their log-partition over the whole vocabulary with the blank's constant
    [frames], and a text's ids without blanks [labels], all on the model's device → [frames, 1 + labels], natural
    logarithms.
    """
    columns = F.pad(labels, (1, 0), value=model.config.blank_id)
    return _log_probs(model, states, log_partition, columns)


class TextsToScore(NamedTuple):
    """Texts of one segment whose likelihood is wanted."""

    states: Tensor
    """Audio embeddings every 20 ms, whole strides of the projector's grid.  [frames, hidden]"""
    log_partition: Tensor
    """Of these over the whole vocabulary, with the blank's constant.  [frames]"""
    texts: Sequence[Sequence[int]]
    """Vocabulary ids, without blanks; as many texts as one likes."""


@torch.no_grad()
def text_log_likelihoods(model: AsrModel, segments: Sequence[TextsToScore]) -> list[Tensor]:
    """Compute how likely CTC finds texts: the log-likelihood over all paths, the mean of the projector's shifts.

    Segments are scored together; none depends on the others. For each text of each segment nats, on the model's device,
    at least `IMPOSSIBLE`: what a shift gives to a text that its embeddings are too few for.  [texts] each

    Source:
        Graves et al. 2006, section 4.1, by torch's own loss; the mean over shifts is ours.
    """
    scored = [segment for segment in segments if segment.texts]
    found = _mean_over_shifts(model, scored) if scored else torch.empty(0, device=model.device)
    return list(found.split([len(segment.texts) for segment in segments]))


def _mean_over_shifts(model: AsrModel, segments: Sequence[TextsToScore]) -> Tensor:
    """Score all texts of all segments, one after the other."""
    num_shifts, device = model.config.projector.subsampling, model.device
    texts = [[np.asarray(text, dtype=np.int64) for text in segment.texts] for segment in segments]
    labels = [np.unique(np.concatenate(own)) for own in texts]
    columns = upload(torch.from_numpy(np.concatenate([[model.config.blank_id, *own] for own in labels])), device)
    log_probs = [
        _log_probs(model, segment.states, segment.log_partition, own).unflatten(0, (-1, num_shifts))
        for segment, own in zip(segments, columns.split([1 + len(own) for own in labels]), strict=True)
    ]  # [audio tokens, shifts, 1 + labels] each
    targets = [1 + np.searchsorted(own, text) for own, said in zip(labels, texts, strict=True) for text in said]
    num_texts = [len(said) for said in texts]
    num_tokens = [len(own) for own, count in zip(log_probs, num_texts, strict=True) for _ in range(count)]
    nll = F.ctc_loss(
        _side_by_side(log_probs, num_texts),
        upload(_filled_up(targets), device).repeat_interleave(num_shifts, dim=0),
        torch.tensor(num_tokens).repeat_interleave(num_shifts),
        torch.tensor([len(target) for target in targets]).repeat_interleave(num_shifts),
        reduction="none",
    )
    return (-nll).clamp(min=IMPOSSIBLE).view(-1, num_shifts).mean(dim=1)


def _side_by_side(log_probs: Sequence[Tensor], num_texts: Sequence[int]) -> Tensor:
    """Lay segments out, each as often as it has texts; the zeros that fill them up are never read.

    Log-probabilities.  [audio tokens, texts · shifts, 1 + labels]
    """
    longest, widest = max(map(len, log_probs)), max(own.shape[2] for own in log_probs)
    filled = [F.pad(own, (0, widest - own.shape[2], 0, 0, 0, longest - len(own))) for own in log_probs]
    return torch.cat([own.repeat(1, count, 1) for own, count in zip(filled, num_texts, strict=True)], dim=1)


def _filled_up(targets: Sequence[np.ndarray]) -> Tensor:
    filled = np.zeros((len(targets), max(1, *map(len, targets))), dtype=np.int64)
    for row, target in zip(filled, targets, strict=True):
        row[: len(target)] = target
    return torch.from_numpy(filled)


def _log_probs(model: AsrModel, states: Tensor, log_partition: Tensor, columns: Tensor) -> Tensor:
    """Read a few vocabulary entries off embeddings.  [frames, columns]"""
    logits = label_logits(states, model.head_weight, columns, model.config.softcap, model.config.blank_logit)
    return logits - log_partition.unsqueeze(-1)
