"""Random numbers that belong to a segment, not to a batch: Philox4x32-10, keyed by segment, counted by step.

In: which segment, which step, what for. Out: token ids and uniforms, the same on every device and in every batch.
Knows nothing of models or canvases' contents.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from dgasr.device import upload

_WORD = 1 << 32
_LOW = _WORD - 1
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


class Purpose(IntEnum):
    """What a draw is for; part of the counter, so that draws for different purposes are independent."""

    INITIAL = 0
    SAMPLE = 1
    RENOISE = 2


def segment_key(recording_id: str, segment_index: int) -> int:
    """Return the 64-bit key of a segment's noise."""
    identity = f"{recording_id}\0{segment_index}".encode()
    return int.from_bytes(hashlib.blake2b(identity, digest_size=8).digest(), "little")


def key_words(keys: Sequence[int], device: torch.device) -> Tensor:
    """Split 64-bit keys into the words that Philox takes, low word first; int64 [rows, 2]."""
    return upload(torch.tensor([[key & _LOW, key >> 32] for key in keys], dtype=torch.int64), device)


def philox(counter: Sequence[Tensor], key: Sequence[Tensor]) -> Tensor:
    """Turn counters into random 32-bit words.

    Args:
        counter: four words, low word first, int64 in [0, 2^32), of shapes that broadcast.
        key: two words, likewise.

    Returns:
        Four words per counter, int64 in [0, 2^32).  [..., 4]

    Source:
        Philox4x32-10 of Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; equals the known answers
        published with Random123.
    """
    word_0, word_1, word_2, word_3 = counter
    key_0, key_1 = key
    for _ in range(_ROUNDS):
        # Products of two 32-bit words wrap int64's sign; both halves below are the same bits as in uint64.
        product_0, product_1 = word_0 * _MULTIPLIERS[0], word_2 * _MULTIPLIERS[1]
        word_0, word_1 = ((product_1 >> 32) & _LOW) ^ word_1 ^ key_0, product_1 & _LOW
        word_2, word_3 = ((product_0 >> 32) & _LOW) ^ word_3 ^ key_1, product_0 & _LOW
        key_0, key_1 = (key_0 + _KEY_INCREMENTS[0]) & _LOW, (key_1 + _KEY_INCREMENTS[1]) & _LOW
    return torch.stack(torch.broadcast_tensors(word_0, word_1, word_2, word_3), dim=-1)


def to_token_ids(words: Tensor, vocab_size: int) -> Tensor:
    """Map random words to ids in [0, vocab_size) by multiplying and shifting.

    The probabilities of two ids differ by at most 2^-32: relative to 1 / vocab_size, 6e-5 for 262,144 ids.
    """
    return (words * vocab_size) >> 32


def to_uniforms(words: Tensor) -> Tensor:
    """Map random words to the open interval (0, 1), on a grid of 2^-32.

    float64, because float32 would round the largest ones to 1.
    """
    return (words.to(torch.float64) + 0.5) / _WORD


@dataclass(frozen=True, slots=True, eq=False)
class SegmentNoise:
    """The noise of a batch of rows, each at its own step.

    keys: words of each row's segment key, from `key_words`.  [rows, 2]
    steps: steps each row has done; 0 before its first.  [rows]
    """

    keys: Tensor
    steps: Tensor

    def initial_ids(self, canvas_tokens: int, vocab_size: int) -> Tensor:
        """Draw the canvas that denoising starts from; int64 [rows, canvas]."""
        return to_token_ids(self._words(Purpose.INITIAL, canvas_tokens)[:, :, 0, 0], vocab_size)

    def renoise_ids(self, canvas_tokens: int, vocab_size: int) -> Tensor:
        """Draw tokens for the positions that this step does not accept; int64 [rows, canvas]."""
        return to_token_ids(self._words(Purpose.RENOISE, canvas_tokens)[:, :, 0, 0], vocab_size)

    def sample_uniforms(self, canvas_tokens: int, num_chunks: int) -> Tensor:
        """Draw what sampling from `num_chunks` chunks of the vocabulary needs; [rows, canvas, chunks, 4] float64.

        Three uniforms are used, the fourth comes free.
        """
        return to_uniforms(self._words(Purpose.SAMPLE, canvas_tokens, num_chunks))

    def _words(self, purpose: Purpose, canvas_tokens: int, num_lanes: int = 1) -> Tensor:
        device = self.keys.device
        positions = torch.arange(canvas_tokens, device=device)[:, None]  # [canvas, 1]
        lanes = torch.arange(num_lanes, device=device)  # [lanes]
        steps = self.steps[:, None, None]  # [rows, 1, 1]
        what = torch.full_like(lanes, int(purpose))
        return philox((positions, lanes, steps, what), self.keys[:, None, None, :].unbind(dim=-1))
