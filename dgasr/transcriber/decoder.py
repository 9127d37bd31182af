"""The backbone's decoder over a batch of rows, each with the prompt cache of its own segment."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dgasr.model.asr import AsrModel
from dgasr.model.canvas_cache import CanvasCache
from dgasr.transcriber.encoding import EncodedSegment


class CachedDecoder:
    """What `diffusion.denoise` calls; its cache is filled row by row, in place.

    Args:
        model: in evaluation mode.
        num_rows: rows of every call.
        canvas_tokens: largest canvas.
    """

    def __init__(self, model: AsrModel, num_rows: int, canvas_tokens: int) -> None:
        self._model, self._num_rows, self._canvas_tokens = model, num_rows, canvas_tokens
        self._cache: CanvasCache | None = None

    def admit(self, rows: Sequence[int], payloads: Sequence[EncodedSegment]) -> None:
        """Copy segments' prompt caches into rows."""
        if self._cache is None:
            self._cache = CanvasCache(payloads[0].keys_values, self._num_rows, self._canvas_tokens)
        chosen = torch.tensor(rows, device=self._model.device)
        self._cache.put(chosen, [payload.keys_values for payload in payloads])

    def __call__(self, ids: Tensor, soft_embeddings: Tensor) -> Tensor:
        """Run one step; [rows, canvas], [rows, canvas, hidden] → [rows, canvas, hidden]."""
        assert self._cache is not None, "rows are admitted before their first step"
        return self._model.decode(ids, soft_embeddings, self._cache)
