"""Hidden states in, log-probabilities over the vocabulary out, without ever holding `[..., vocab]`.

The head is the tied embedding with a soft cap: `logits = softcap · tanh(hidden · weightᵀ / softcap)`. One id may
carry a constant on top (`bias`, added after the cap): the CTC blank needs to start out likely. The vocabulary is
walked in chunks, forward and again in backward, so memory is `rows x chunk`. This file knows neither CTC nor diffusion.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dgasr.device import runs_kernels

Bias = tuple[int, float]
"""(vocabulary id, constant that is added to its logit after the soft cap)."""


class VocabularyScan(NamedTuple):
    """What one pass over the vocabulary tells about every row."""

    ids: Tensor
    """The likeliest id; the lowest of equals.  [...]"""
    top_logit: Tensor
    """Its logit, float32.  [...]"""
    log_partition: Tensor
    """logsumexp of all logits, float32: a logit minus this is a log-probability.  [...]"""


def log_partition(hidden: Tensor, weight: Tensor, softcap: float, chunk: int, bias: Bias | None = None) -> Tensor:
    """Compute the logsumexp over the vocabulary of the capped logits, with an exact gradient.

    Args:
        hidden: states before the head, any float type.  [..., hidden]
        weight: output embedding; receives a gradient only if it requires one.  [vocab, hidden]
        softcap: bound of the logits' absolute value, > 0.
        chunk: vocabulary rows that are held at a time, ≥ 1.
        bias: id and constant added to its logit after the cap.

    Returns:
        The log-partition, float32.  [...]

    Source:
        Ours; `d logZ = Σ p · (1 − tanh²) · weight`, with p recomputed in backward.
    """
    if weight.shape[0] <= chunk:
        return torch.logsumexp(_logits(hidden, weight, softcap, 0, bias), dim=-1)
    return _LogPartition.apply(hidden, weight, softcap, chunk, bias)


def label_logits(hidden: Tensor, weight: Tensor, ids: Tensor, softcap: float, bias: Bias | None = None) -> Tensor:
    """Compute the capped logits of a few ids only, float32; [..., frames, labels].

    Of `hidden` [..., frames, hidden]; `ids` [..., labels] are the same for all frames of a row. The other arguments are
    as in `log_partition`.
    """
    logits = _capped(_products(hidden, weight[ids]), softcap)
    if bias is not None:
        logits = logits + bias[1] * (ids == bias[0]).to(logits.dtype).unsqueeze(-2)
    return logits


@torch.no_grad()
def scan_vocabulary(
    hidden: Tensor, weight: Tensor, softcap: float, chunk: int, bias: Bias | None = None
) -> VocabularyScan:
    """Find the likeliest id and the log-partition of every row in one pass; arguments as in `log_partition`."""
    rows = hidden.shape[:-1]
    total = torch.full(rows, -torch.inf, device=hidden.device)
    top_logit = torch.full(rows, -torch.inf, device=hidden.device)
    ids = torch.zeros(rows, dtype=torch.long, device=hidden.device)
    scan_chunk = _choose_scan(weight.device)
    for start, part in _chunks(weight, chunk):
        value, index, added = scan_chunk(hidden, part, softcap, start, bias)
        total = torch.logaddexp(total, added)
        ids = torch.where(value > top_logit, index + start, ids)
        top_logit = torch.maximum(top_logit, value)
    return VocabularyScan(ids, top_logit, total)


@torch.no_grad()
def vocabulary_log_probs(hidden: Tensor, weight: Tensor, softcap: float) -> Tensor:
    """Compute the log-probabilities of the whole vocabulary, for the few rows where that may be held.

    Natural logarithms, float32 [..., vocab]; the arguments are as in `log_partition`.
    """
    return _logits(hidden, weight, softcap, 0, None).log_softmax(dim=-1)


class _LogPartition(torch.autograd.Function):
    """The streamed logsumexp; saves the inputs and its own result, nothing of the vocabulary's width."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, softcap: float, chunk: int, bias: Bias | None) -> Tensor:
        total = scan_vocabulary(hidden, weight, softcap, chunk, bias).log_partition
        ctx.save_for_backward(hidden, weight, total)
        ctx.softcap, ctx.chunk, ctx.bias = softcap, chunk, bias
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        hidden, weight, total = ctx.saved_tensors
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.zeros(hidden.shape, device=hidden.device) if wants_hidden else None
        grad_weight = torch.empty_like(weight) if wants_weight else None
        for start, part in _chunks(weight, ctx.chunk):
            slope = _slope(hidden, part, total, ctx.softcap, start, ctx.bias).mul_(grad_total.unsqueeze(-1))
            if grad_hidden is not None:
                grad_hidden += _products(slope, part.T)
            if grad_weight is not None:
                rows = slope.flatten(0, -2)  # [rows, chunk]
                grad_weight[start : start + len(part)] = _products(rows.T, hidden.flatten(0, -2).T)
        return grad_hidden if grad_hidden is None else grad_hidden.to(hidden.dtype), grad_weight, None, None, None


def _slope(hidden: Tensor, part: Tensor, total: Tensor, softcap: float, start: int, bias: Bias | None) -> Tensor:
    """Compute the derivative of the log-partition by the uncapped products `[..., chunk]` of one chunk."""
    bent = torch.tanh(_products(hidden, part) / softcap)
    logits = _with_bias(softcap * bent, start, bias)
    return logits.sub_(total.unsqueeze(-1)).exp_().mul_(1 - bent.square_())


def _logits(hidden: Tensor, part: Tensor, softcap: float, start: int, bias: Bias | None) -> Tensor:
    """Compute the logits `[..., chunk]`, float32, of the vocabulary rows `part` that begin at id `start`."""
    return _with_bias(_capped(_products(hidden, part), softcap), start, bias)


_Scanned = tuple[Tensor, Tensor, Tensor]
"""Highest logit, its place in the chunk, logsumexp of every row.  [...] each"""


def _choose_scan(device: torch.device) -> Callable[[Tensor, Tensor, float, int, Bias | None], _Scanned]:
    """Choose what reads a chunk: a Triton kernel on CUDA, torch's operations elsewhere."""
    return scan_fused if runs_kernels(device) else scan_plain


def scan_plain(hidden: Tensor, part: Tensor, softcap: float, start: int, bias: Bias | None) -> _Scanned:
    """Read the vocabulary rows `part`, which begin at id `start`, with torch's own operations."""
    logits = _logits(hidden, part, softcap, start, bias)  # [..., chunk]
    value, index = logits.max(dim=-1)
    return value, index, torch.logsumexp(logits, dim=-1)


def scan_fused(hidden: Tensor, part: Tensor, softcap: float, start: int, bias: Bias | None) -> _Scanned:
    """Read them by a Triton kernel."""
    from dgasr.model.head_kernel import scan_chunk_fused

    products, (favoured, constant) = _products(hidden, part), bias or (-1, 0.0)
    found = scan_chunk_fused(products.flatten(0, -2).contiguous(), softcap, favoured - start, constant)
    top, index, total = (tensor.unflatten(0, hidden.shape[:-1]) for tensor in found)
    return top, index, total


def _capped(products: Tensor, softcap: float) -> Tensor:
    return softcap * torch.tanh(products / softcap)


def _with_bias(logits: Tensor, start: int, bias: Bias | None) -> Tensor:
    if bias is None or not start <= bias[0] < start + logits.shape[-1]:
        return logits
    constant = torch.zeros(logits.shape[-1], device=logits.device)
    constant[bias[0] - start] = bias[1]
    return logits + constant


def _products(left: Tensor, right: Tensor) -> Tensor:
    """Multiply `left [..., rows, hidden]` by `right [..., columns, hidden]` transposed, summed and kept in float32.

    Half-precision operands on CUDA stay as they are (tensor cores add up in float32 anyway); elsewhere they are
    widened. Rounding the sums to bfloat16, as a plain product would, moves a logit near 30 by up to 0.06.
    """
    with torch.autocast(left.device.type, enabled=False):
        if _widens_in_hardware(left, right):
            return torch.mm(left.flatten(0, -2), right.T, out_dtype=torch.float32).unflatten(0, left.shape[:-1])
        return left.float() @ right.float().transpose(-1, -2)


def _widens_in_hardware(left: Tensor, right: Tensor) -> bool:
    # A matrix product with `out_dtype` has no autograd formula, so only passes that need none may take it.
    needs_grad = torch.is_grad_enabled() and (left.requires_grad or right.requires_grad)
    half = left.dtype == right.dtype and left.dtype in (torch.bfloat16, torch.float16)
    return left.is_cuda and half and right.dim() == 2 and not needs_grad


def _chunks(weight: Tensor, chunk: int) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, weight.shape[0], chunk):
        yield start, weight[start : start + chunk]
