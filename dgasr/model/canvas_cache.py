"""Prompt keys and values of a batch, with room behind them for the canvas that attends to them.

transformers' decoder joins both anew in every layer of every step, and so copies prompts that never change. Here the
prompts stay where they are and only the canvas is written.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


class CanvasCache:
    """What the backbone's decoder reads in place of transformers' cache.

    Args:
        example: keys and values of a prompt in every layer; the same length in all.  [heads, prompt, head_dim]
        num_rows: rows of the batch.
        canvas_tokens: largest canvas.
    """

    is_compileable = False

    def __init__(self, example: Sequence[tuple[Tensor, Tensor]], num_rows: int, canvas_tokens: int) -> None:
        self._prompt_tokens = example[0][0].shape[1]
        self._layers = [
            tuple(tensor.new_zeros(num_rows, tensor.shape[0], self._prompt_tokens + canvas_tokens, tensor.shape[2])
                  for tensor in pair)
            for pair in example
        ]  # fmt: skip

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Length of the prompts, which is the canvas's first position."""
        return self._prompt_tokens

    def put(self, rows: Tensor, prompts: Sequence[Sequence[tuple[Tensor, Tensor]]]) -> None:
        """Load prompts into rows.

        Args:
            rows: which.  [prompts] int64
            prompts: keys and values of every layer of each.
        """
        for index, layer in enumerate(self._layers):
            for kind, buffer in enumerate(layer):
                buffer[rows, :, : self._prompt_tokens] = torch.stack([prompt[index][kind] for prompt in prompts])

    def join(self, layer_idx: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put a canvas behind the prompts.

        Args:
            layer_idx: which layer.
            keys: of the canvas.  [rows, heads, canvas, head_dim]
            values: of the canvas.  [rows, heads, canvas, head_dim]

        Returns:
            Keys and values of prompt and canvas, valid until the next call for this layer.
        """
        end = self._prompt_tokens + keys.shape[2]
        joined = []
        for buffer, canvas in zip(self._layers[layer_idx], (keys, values), strict=True):
            buffer[:, :, self._prompt_tokens : end] = canvas
            joined.append(buffer[:, :, :end])
        return joined[0], joined[1]


def read_canvas_caches(decoder: nn.Module) -> None:
    """Let transformers' decoder take a `CanvasCache` too, in place; its own caches go the way they went."""
    layers: Any = decoder.get_submodule("layers")
    for layer in layers:
        attention = layer.self_attn
        attention.append_to_cache = partial(_append, attention.append_to_cache, attention.layer_idx)


def _append(plain: Any, layer_idx: int, cache: Any, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    if isinstance(cache, CanvasCache):
        return cache.join(layer_idx, keys, values)
    joined: tuple[Tensor, Tensor] = plain(cache, keys, values)
    return joined
