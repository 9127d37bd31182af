"""A chunk of the vocabulary at many rows, read by one Triton kernel: each product is loaded once, nothing is stored.

torch's operations pass over the logits a dozen times (`head.py`, which gives the same numbers). The matrix product is
the library's. Needs Triton, which comes with torch for CUDA.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

COLUMNS = 2048
"""Vocabulary entries a program reads at once."""

_FAR_BELOW = tl.constexpr(-3.0e38)


def scan_chunk_fused(products: Tensor, softcap: float, favoured: int, constant: float) -> tuple[Tensor, Tensor, Tensor]:
    """Cap the products of a chunk and summarise them.

    Args:
        products: of hidden states with the chunk's rows of the head, float32.  [rows, chunk]
        softcap: bound of the logits' absolute value, > 0.
        favoured: column whose logit gets a constant on top, after the cap; -1 for none.
        constant: that constant.

    Returns:
        The highest logit, its column (the lowest of equals) and the logsumexp, of every row.  [rows] each

    Source:
        Ours.
    """
    rows, chunk = products.shape
    num_parts = triton.cdiv(chunk, COLUMNS)
    peaks = torch.empty(rows, num_parts, dtype=torch.float32, device=products.device)
    totals, columns = torch.empty_like(peaks), torch.empty_like(peaks, dtype=torch.int32)
    with torch.cuda.device_of(products):  # Triton launches on the thread's current device
        _scan_kernel[(rows, num_parts)](
            products, peaks, totals, columns, chunk, num_parts, softcap, favoured, constant, COLUMNS=COLUMNS
        )
    top = peaks.amax(dim=-1)
    # Of equal peaks torch may choose any on a GPU.
    best = torch.where(peaks == top[:, None], columns, chunk).amin(dim=-1)
    total = (totals * (peaks - top[:, None]).exp()).sum(dim=-1)
    return top, best.long(), top + total.log()


@triton.jit
def _scan_kernel(  # type: ignore[no-untyped-def] # Triton would look annotations up on the GPU's side
    products_at, peaks_at, totals_at, columns_at, num_columns, num_parts, softcap, favoured, constant,
    COLUMNS: tl.constexpr,  # noqa: N803
):  # fmt: skip
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    columns = part * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < num_columns
    products = tl.load(products_at + row * num_columns + columns, mask=inside, other=0.0)
    bent = 2.0 * tl.sigmoid(2.0 * (products / softcap)) - 1.0  # tanh
    logits = softcap * bent + tl.where(columns == favoured, constant, 0.0)
    logits = tl.where(inside, logits, _FAR_BELOW)
    peak = tl.max(logits, axis=0)
    out = row * num_parts + part
    tl.store(peaks_at + out, peak)
    tl.store(columns_at + out, part * COLUMNS + tl.argmax(logits, axis=0, tie_break_left=True))
    tl.store(totals_at + out, tl.sum(tl.where(inside, tl.exp(logits - peak), 0.0), axis=0))
