"""The backbone's decoder over a batch of rows, each with the prompt cache of its own segment."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from dgasr.model.asr import AsrModel, keys_values
from dgasr.transcriber.encoding import EncodedSegment


class CachedDecoder:
    """What `diffusion.denoise` calls; its cache is filled row by row, in place.

    Args:
        model: in evaluation mode.
        num_rows: rows of every call.
    """

    def __init__(self, model: AsrModel, num_rows: int) -> None:
        self._model, self._num_rows = model, num_rows
        self._cache = DynamicCache(config=model.backbone.config.get_text_config())

    def admit(self, rows: Sequence[int], payloads: Sequence[EncodedSegment]) -> None:
        """Copy segments' prompt caches into rows."""
        if self._cache.get_seq_length() == 0:
            self._allocate(payloads[0])
        chosen = torch.tensor(rows, device=self._model.device)
        for index, (keys, values) in enumerate(keys_values(self._cache)):
            keys[chosen] = torch.stack([payload.keys_values[index][0] for payload in payloads])
            values[chosen] = torch.stack([payload.keys_values[index][1] for payload in payloads])

    def __call__(self, ids: Tensor, soft_embeddings: Tensor) -> Tensor:
        """Run one step; [rows, canvas], [rows, canvas, hidden] → [rows, canvas, hidden]."""
        return self._model.decode(ids, soft_embeddings, self._cache)

    def _allocate(self, example: EncodedSegment) -> None:
        for index, (keys, values) in enumerate(example.keys_values):
            self._cache.update(
                keys.expand(self._num_rows, *keys.shape).clone(),
                values.expand(self._num_rows, *values.shape).clone(),
                index,
            )
