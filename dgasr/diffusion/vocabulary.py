"""One pass over the vocabulary: from hidden states to argmax, entropy, sample and soft embedding.

In: hidden states, the language head, a temperature per row, uniforms. Out: `CanvasStatistics`. Logits exist only for
one chunk of the vocabulary at a time, so memory does not grow with the vocabulary. Knows nothing of steps or canvases.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dgasr.device import runs_kernels, warn_without_kernel

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


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class VocabularyHead:
    """The language head and the embeddings it is tied to.

    weight: one row per vocabulary entry.  [vocab, hidden]
    softcap: logits are `softcap * tanh(x / softcap)`.
    embed_scale: what an embedding is multiplied by before it enters the network.
    """

    weight: Tensor
    softcap: float
    embed_scale: float

    @property
    def vocab_size(self) -> int:
        """Number of vocabulary entries."""
        return self.weight.shape[0]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CanvasStatistics:
    """What a decoder call says of every canvas position.

    argmax_ids: likeliest token; the lowest id among equals.  [rows, canvas] int64
    argmax_log_probability: its log-probability at temperature 1, natural logarithm.  [rows, canvas] float32
    entropy: of the tempered distribution, nats.  [rows, canvas] float32
    sampled_ids: one draw from the tempered distribution.  [rows, canvas] int64
    soft_embeddings: expected embedding under the tempered distribution, scaled.  [rows, canvas, hidden] of the weight
    """

    argmax_ids: Tensor
    argmax_log_probability: Tensor
    entropy: Tensor
    sampled_ids: Tensor
    soft_embeddings: Tensor


def num_chunks(vocab_size: int, chunk: int) -> int:
    """Return how many chunks a vocabulary has; the last one may be shorter."""
    return -(-vocab_size // chunk)


def choose_reader(head: VocabularyHead, lowest_temperature: float) -> ReadChunk:
    """Choose what reads a chunk: a Triton kernel on CUDA, torch's operations elsewhere.

    Where logits divided by the lowest temperature of all steps leave the kernel's range, torch's operations read too.
    """
    if not runs_kernels(head.weight.device):
        return read_chunk
    from dgasr.diffusion.vocabulary_kernel import LARGEST_EXPONENT, read_chunk_fused

    if head.weight.dtype == torch.float16 or head.softcap > LARGEST_EXPONENT * lowest_temperature:
        warn_without_kernel(f"{head.weight.dtype} at temperature {lowest_temperature} leaves its range")
        return read_chunk
    return read_chunk_fused


def read_vocabulary(
    hidden: Tensor,
    head: VocabularyHead,
    temperature: Tensor,
    uniforms: Tensor,
    chunk: int,
    reader: ReadChunk = read_chunk,
) -> CanvasStatistics:
    """Summarise the predicted distributions over the vocabulary, chunk by chunk.

    The sample is exact in one pass: in every chunk one candidate is drawn, and it replaces the candidate so far with
    probability (weight of the chunk) / (weight of all chunks up to and with it). A token of chunk c is therefore kept
    with probability  w(c)/W(1..c) x product over later chunks d of W(1..d-1)/W(1..d)  =  w(c)/W, times its share of
    its chunk: its probability. Inside a chunk a block is drawn by its weight and then a token of the block by its own.

    Args:
        hidden: the network's last hidden states.  [rows, canvas, hidden]
        head: language head.
        temperature: of each row, above 0.  [rows] float32
        uniforms: from `SegmentNoise.sample_uniforms`.  [rows, canvas, chunks, at least 3] float64
        chunk: vocabulary entries at a time.
        reader: from `choose_reader`.

    Returns:
        The statistics of every position.

    Source:
        Weighted reservoir sampling of one item, Chao 1982; the rest ours. Equals the plain formulas on whole logits.
    """
    rows, canvas, width = hidden.shape
    states = hidden.reshape(-1, width).to(head.weight.dtype)  # [positions, hidden]
    temperatures = temperature.repeat_interleave(canvas)[:, None]  # [positions, 1]
    draws = uniforms.flatten(0, 1)  # [positions, chunks, …]
    tally = _Tally(states)
    for index, start in enumerate(range(0, head.vocab_size, chunk)):
        found = reader(states, head.weight[start : start + chunk], head.softcap, temperatures)
        tally.add(start, found, draws[:, index])
    entropy = tally.total.log() - tally.moment / tally.total
    soft_embeddings = tally.embedding * (head.embed_scale / tally.total[:, None]).float()
    return CanvasStatistics(
        argmax_ids=tally.argmax_ids.view(rows, canvas),
        argmax_log_probability=-tally.plain_total.log().float().view(rows, canvas),
        entropy=entropy.clamp(min=0).float().view(rows, canvas),
        sampled_ids=tally.sampled_ids.view(rows, canvas),
        soft_embeddings=soft_embeddings.to(head.weight.dtype).view(rows, canvas, width),
    )


class _Tally:
    """Sums over the chunks seen so far, all relative to `peak`, the highest tempered logit seen so far.

    With y the tempered logits relative to `peak`: total = Σ exp(y), moment = Σ exp(y) y, embedding = Σ exp(y) E.
    Entropy = log(total) - moment / total then keeps its digits for a sure position, where a constant shift would leave
    a difference of two large numbers; and no temperature overflows. `plain_…` are the same at temperature 1.
    """

    def __init__(self, states: Tensor) -> None:
        def filled(value: float) -> Tensor:
            return torch.full((states.shape[0],), value, dtype=torch.float64, device=states.device)

        lowest = float(torch.finfo(torch.float32).min)
        self.peak, self.total, self.moment = filled(lowest), filled(0), filled(0)
        self.plain_peak, self.plain_total = filled(lowest), filled(0)
        self.argmax_ids, self.sampled_ids = filled(0).long(), filled(0).long()
        self.embedding = torch.zeros(states.shape, dtype=torch.float32, device=states.device)

    def add(self, start: int, found: ChunkSums, uniforms: Tensor) -> None:
        """Take in the chunk of vocabulary that begins at id `start`."""
        block = _invert_cdf(found.block_sums, uniforms[:, 1])
        candidate = block * BLOCK + _invert_cdf(found.weights_of(block).double(), uniforms[:, 2])
        self._merge_plain(found.plain_peak, found.plain_total)
        self.argmax_ids = torch.where(found.peak > self.peak, found.best + start, self.argmax_ids)
        added = self._merge(found)
        self.sampled_ids = torch.where(uniforms[:, 0] * self.total < added, candidate + start, self.sampled_ids)

    def _merge(self, found: ChunkSums) -> Tensor:
        """Add a chunk's sums and return the chunk's part of the new total."""
        new_peak = torch.maximum(self.peak, found.peak)
        before, now = self.peak - new_peak, found.peak - new_peak  # both at most 0
        scale_before, scale_now = before.exp(), now.exp()
        total = found.block_sums.sum(dim=-1)
        self.moment = scale_before * (self.moment + self.total * before) + scale_now * (found.moment + total * now)
        self.total = scale_before * self.total + scale_now * total
        embedding_scale = (found.embedding_peak - new_peak).exp()
        self.embedding.mul_(scale_before[:, None].float()).addcmul_(found.embedding, embedding_scale[:, None].float())
        self.peak = new_peak
        return scale_now * total

    def _merge_plain(self, peak: Tensor, total: Tensor) -> None:
        new_peak = torch.maximum(self.plain_peak, peak)
        self.plain_total = (self.plain_peak - new_peak).exp() * self.plain_total + (peak - new_peak).exp() * total
        self.plain_peak = new_peak


def _invert_cdf(weights: Tensor, uniform: Tensor) -> Tensor:
    # The first entry whose cumulated weight exceeds the target; an entry of weight 0 never does so first.
    cumulated = weights.cumsum(dim=-1)
    return (cumulated <= uniform[:, None] * cumulated[:, -1:]).sum(dim=-1)
