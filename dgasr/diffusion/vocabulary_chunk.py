"""A chunk of the vocabulary at many positions: logits in, the sums that a distribution is told by out.

This is the plain way, any device, any temperature; `vocabulary_kernel.py` gives the same numbers on a GPU.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

BLOCK = 128
"""Vocabulary entries per block. A draw finds its block by block sums and then looks at one block only."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ChunkSums:
    """What a chunk says of every position. With z its logits and y = z / temperature:

    best: likeliest entry of the chunk; the lowest of equals.  [positions] int64
    peak: its y.  [positions] float64
    plain_peak: its z.  [positions] float64
    block_sums: Σ exp(y - peak) over each block.  [positions, blocks] float64
    moment: Σ exp(y - peak) (y - peak).  [positions] float64
    plain_total: Σ exp(z - plain_peak).  [positions] float64
    embedding: Σ exp(y - embedding_peak) E, E being the entries' embeddings.  [positions, hidden] float32
    embedding_peak: what y is counted from there.  [positions] float64
    weights_of: gives exp(y - peak) of the entries of one block of every position, 0 past the last entry.
        [positions] int64 → [positions, BLOCK]
    """

    best: Tensor
    peak: Tensor
    plain_peak: Tensor
    block_sums: Tensor
    moment: Tensor
    plain_total: Tensor
    embedding: Tensor
    embedding_peak: Tensor
    weights_of: Callable[[Tensor], Tensor]


ReadChunk = Callable[[Tensor, Tensor, float, Tensor], ChunkSums]
"""(states [positions, hidden], weight [chunk, hidden], softcap, temperatures [positions, 1]) → sums."""


def read_chunk(states: Tensor, weight: Tensor, softcap: float, temperatures: Tensor) -> ChunkSums:
    """Read a chunk with torch's own operations; see `ReadChunk`."""
    plain = F.linear(states, weight).float().div_(softcap).tanh_().mul_(softcap)  # [positions, chunk]
    tempered = plain / temperatures
    peak, best = tempered.max(dim=-1)
    centred = tempered.sub_(peak[:, None])
    weights = centred.exp()
    blocks = _blocks(weights)  # [positions, blocks, BLOCK]
    block_sums = blocks.sum(dim=-1).double()
    embedding = (weights.to(weight.dtype) @ weight).float()  # [positions, hidden]
    moment = centred.mul_(weights).sum(dim=-1).double()
    plain_peak = plain.gather(-1, best[:, None])
    plain_total = plain.sub_(plain_peak).exp_().sum(dim=-1).double()
    peak = peak.double()
    return ChunkSums(
        best=best, peak=peak, plain_peak=plain_peak[:, 0].double(), block_sums=block_sums, moment=moment,
        plain_total=plain_total, embedding=embedding, embedding_peak=peak,
        weights_of=lambda block: blocks.gather(1, block[:, None, None].expand(-1, 1, BLOCK)).squeeze(1),
    )  # fmt: skip


def _blocks(weights: Tensor) -> Tensor:
    missing = -weights.shape[-1] % BLOCK
    padded = F.pad(weights, (0, missing)) if missing else weights
    return padded.unflatten(-1, (-1, BLOCK))
