"""A chunk of the vocabulary, read by one Triton kernel: each logit is loaded once and its weight stored once.

torch's operations pass over the logits a dozen times (`vocabulary.py`, which gives the same numbers). The matrix
products stay the library's. Needs Triton, which comes with torch for CUDA.
"""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from dgasr.diffusion.vocabulary import BLOCK, ChunkSums

LARGEST_EXPONENT = 76.0
"""Of exp(y) in float32 and bfloat16: y itself then needs no shift. exp(76) times a chunk of 65,536 entries is 7e37, and
exp(-76) is 1e-33, both far inside their range. A network's logits are at most 30, a temperature at least 0.4: 75."""

BLOCKS_PER_PROGRAM = 8

_FAR_BELOW = tl.constexpr(-3.0e38)


def read_chunk_fused(states: Tensor, weight: Tensor, softcap: float, temperatures: Tensor) -> ChunkSums:
    """Read a chunk; see `vocabulary.read_chunk`. softcap / temperature must not exceed `LARGEST_EXPONENT`.

    Every block is summed relative to its own peak, so that the entropy keeps its digits where a token is sure. Only the
    weights that the embeddings are summed with are exp(y) as it is: fixed, so nothing has to be known beforehand.

    Source:
        Ours; a fixed shift is the design's idea, and decision 7 tells why -75 was not the right one.
    """
    logits = F.linear(states, weight)  # [positions, chunk]
    sums, best, weights = _sum_blocks(logits, softcap, temperatures)
    block_peak, total, moment, plain_block_peak, plain_total = sums.double().unbind()  # [positions, blocks] each
    peak, plain_peak = block_peak.amax(dim=-1), plain_block_peak.amax(dim=-1)
    below = block_peak - peak[:, None]
    scale = below.exp()
    is_best = block_peak == peak[:, None]
    lowest = torch.where(is_best, best, logits.shape[1]).amin(dim=-1)

    def weights_of(block: Tensor) -> Tensor:
        columns = block[:, None] * BLOCK + torch.arange(BLOCK, device=block.device)  # [positions, BLOCK]
        chosen = logits.gather(1, columns.clamp(max=logits.shape[1] - 1)).float()
        tempered = softcap * torch.tanh(chosen / softcap) / temperatures
        return torch.where(columns < logits.shape[1], (tempered - peak[:, None].float()).exp(), 0.0)

    return ChunkSums(
        best=lowest.long(), peak=peak, plain_peak=plain_peak, block_sums=total * scale,
        moment=(scale * (moment + total * below)).sum(dim=-1),
        plain_total=((plain_block_peak - plain_peak[:, None]).exp() * plain_total).sum(dim=-1),
        embedding=(weights @ weight).float(), embedding_peak=torch.zeros_like(peak), weights_of=weights_of,
    )  # fmt: skip


def _sum_blocks(logits: Tensor, softcap: float, temperatures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Launch the kernel: sums [5, positions, blocks] float32, best [positions, blocks] int32, weights like logits."""
    positions, chunk = logits.shape
    num_blocks = triton.cdiv(chunk, BLOCK)
    sums = torch.empty(5, positions, num_blocks, dtype=torch.float32, device=logits.device)
    best = torch.empty(positions, num_blocks, dtype=torch.int32, device=logits.device)
    weights = torch.empty_like(logits)
    grid = (positions, triton.cdiv(num_blocks, BLOCKS_PER_PROGRAM))
    with torch.cuda.device_of(logits):  # Triton launches on the thread's current device
        _sum_blocks_kernel[grid](
            logits, temperatures.contiguous(), weights, sums, best, chunk, num_blocks, positions * num_blocks, softcap,
            BLOCK=BLOCK, BLOCKS=BLOCKS_PER_PROGRAM,
        )  # fmt: skip
    return sums, best, weights


@triton.jit
def _sum_blocks_kernel(  # type: ignore[no-untyped-def] # Triton would look annotations up on the GPU's side
    logits_at, temperatures_at, weights_at, sums_at, best_at, num_columns, num_blocks, plane, softcap,
    BLOCK: tl.constexpr, BLOCKS: tl.constexpr,  # noqa: N803
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    blocks = tl.program_id(1) * BLOCKS + tl.arange(0, BLOCKS)
    columns = blocks[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = columns < num_columns
    places = row * num_columns + columns
    logits = tl.load(logits_at + places, mask=inside, other=0.0).to(tl.float32)
    bent = 2.0 * tl.sigmoid(2.0 * (logits / softcap)) - 1.0  # tanh
    tempered = tl.where(inside, softcap * bent / tl.load(temperatures_at + row), _FAR_BELOW)
    plain = tl.where(inside, softcap * bent, _FAR_BELOW)
    peak, plain_peak = tl.max(tempered, axis=1), tl.max(plain, axis=1)
    centred = tl.where(inside, tempered - peak[:, None], 0.0)
    weights = tl.where(inside, tl.exp(centred), 0.0)
    plain_weights = tl.where(inside, tl.exp(tl.where(inside, plain - plain_peak[:, None], 0.0)), 0.0)
    out = row * num_blocks + blocks
    is_block = blocks < num_blocks
    tl.store(sums_at + out, peak, mask=is_block)
    tl.store(sums_at + plane + out, tl.sum(weights, axis=1), mask=is_block)
    tl.store(sums_at + 2 * plane + out, tl.sum(weights * centred, axis=1), mask=is_block)
    tl.store(sums_at + 3 * plane + out, plain_peak, mask=is_block)
    tl.store(sums_at + 4 * plane + out, tl.sum(plain_weights, axis=1), mask=is_block)
    best = tl.argmax(tempered, axis=1, tie_break_left=True) + blocks * BLOCK
    tl.store(best_at + out, best.to(tl.int32), mask=is_block)
    tl.store(weights_at + places, tl.exp(tl.where(inside, tempered, 0.0)).to(weights_at.dtype.element_ty), mask=inside)
