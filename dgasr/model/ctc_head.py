"""The language head as CTC reads it: audio embeddings in, log-probabilities of labels and of whole texts out.

The blank is one id of the vocabulary with a constant on its logit. What the embeddings were made of, and who looked at
the whole vocabulary for their log-partition, is not known here.
"""

from collections.abc import Sequence

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
    return _label_log_probs(model, states, log_partition, labels).cpu().numpy()


@torch.no_grad()
def text_log_likelihoods(
    model: AsrModel, states: Tensor, log_partition: Tensor, texts: Sequence[Sequence[int]]
) -> list[float]:
    """Compute how likely CTC finds texts: the log-likelihood over all paths, the mean of the projector's shifts.

    Args:
        model: gives the head.
        states: audio embeddings every 20 ms, whole strides of the projector's grid.  [frames, hidden]
        log_partition: of these over the whole vocabulary, with `blank_bias`.  [frames]
        texts: vocabulary ids, without blanks.

    Returns:
        For each text nats, at least `IMPOSSIBLE`: what a shift gives to a text that its embeddings are too few for.

    Source:
        Graves et al. 2006, section 4.1, by torch's own loss; the mean over shifts is ours.
    """
    columns = sorted({label for text in texts for label in text})
    log_probs = _label_log_probs(model, states, log_partition, columns)
    shifts = log_probs.unflatten(0, (-1, model.config.projector.subsampling))  # [audio tokens, shifts, 1 + columns]
    num_tokens, num_shifts, _ = shifts.shape
    column = {label: 1 + index for index, label in enumerate(columns)}
    targets = torch.zeros(len(texts), max(1, *map(len, texts)), dtype=torch.long)
    for row, text in enumerate(texts):
        targets[row, : len(text)] = torch.tensor([column[label] for label in text], dtype=torch.long)
    nll = F.ctc_loss(
        shifts.repeat(1, len(texts), 1),
        targets.to(states.device).repeat_interleave(num_shifts, dim=0),
        torch.full((len(texts) * num_shifts,), num_tokens),
        torch.tensor([len(text) for text in texts]).repeat_interleave(num_shifts),
        reduction="none",
    )
    return (-nll).clamp(min=IMPOSSIBLE).view(len(texts), num_shifts).mean(dim=1).tolist()


def _label_log_probs(model: AsrModel, states: Tensor, log_partition: Tensor, labels: Sequence[int]) -> Tensor:
    config = model.config
    columns = torch.tensor([config.blank_id, *labels], device=states.device)
    logits = label_logits(states, model.head_weight, columns, config.softcap, blank_bias(config))
    return logits - log_partition.unsqueeze(-1)
