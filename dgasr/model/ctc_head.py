"""The language head as CTC reads it: audio embeddings in, log-probabilities of the blank and of a text's labels out.

The blank is one id of the vocabulary with a constant on its logit. What the embeddings were made of, and who looked at
the whole vocabulary for their log-partition, is not known here.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dgasr.model.asr import AsrModel
from dgasr.model.head import Bias, label_logits
from dgasr.model.presets import AsrConfig


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
    config = model.config
    columns = torch.tensor([config.blank_id, *labels], device=states.device)
    logits = label_logits(states, model.head_weight, columns, config.softcap, blank_bias(config))
    return (logits - log_partition.unsqueeze(-1)).cpu().numpy()
