"""The Triton kernel against torch's operations: on a GPU where there is one, else in Triton's interpreter."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton comes with torch for CUDA; without it no kernel runs")

from dgasr.diffusion.noise import SegmentNoise, key_words
from dgasr.diffusion.vocabulary import VocabularyHead, num_chunks, read_chunk, read_vocabulary
from dgasr.diffusion.vocabulary_kernel import read_chunk_fused

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SOFTCAP = 30.0
TEMPERATURES = [0.8, 0.45, 0.4]


def both(spread, chunk, dtype=torch.float32, vocab=700, shift=0.0):
    """Statistics by torch and by the kernel, of 3 rows of 4 positions; `shift` moves all logits the same way."""
    generator = torch.Generator().manual_seed(7)
    hidden = torch.cat([torch.randn(3, 4, 31, generator=generator), torch.full((3, 4, 1), shift)], dim=-1)
    weight = torch.cat([torch.randn(vocab, 31, generator=generator) * spread, torch.ones(vocab, 1)], dim=-1)
    head = VocabularyHead(weight=weight.to(DEVICE, dtype), softcap=SOFTCAP, embed_scale=5.0)
    noise = SegmentNoise(key_words([1, 2, 3], DEVICE), torch.zeros(3, dtype=torch.int64, device=DEVICE))
    uniforms = noise.sample_uniforms(4, num_chunks(vocab, chunk))
    temperature = torch.tensor(TEMPERATURES, device=DEVICE)
    states = hidden.to(DEVICE, dtype)
    return [read_vocabulary(states, head, temperature, uniforms, chunk, r) for r in (read_chunk, read_chunk_fused)]


@pytest.mark.parametrize("chunk", [700, 256, 384], ids=["one", "whole blocks", "remainder"])
@pytest.mark.parametrize("spread", [0.01, 0.3, 3.0])
def test_the_kernel_gives_the_numbers_of_torchs_operations(spread, chunk):
    plain, fused = both(spread, chunk)
    assert torch.equal(fused.argmax_ids, plain.argmax_ids)
    assert torch.equal(fused.sampled_ids, plain.sampled_ids)
    for name in ("argmax_log_probability", "entropy", "soft_embeddings"):
        torch.testing.assert_close(getattr(fused, name), getattr(plain, name), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shift", [-200.0, 200.0], ids=["all at the lower bound", "all at the upper bound"])
def test_logits_at_either_end_of_the_softcap_stay_in_range(shift):
    plain, fused = both(0.3, 256, shift=shift)
    torch.testing.assert_close(fused.entropy, plain.entropy, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(fused.soft_embeddings, plain.soft_embeddings, atol=1e-4, rtol=1e-4)


def test_in_bfloat16_the_numbers_are_as_near_as_its_rounding():
    plain, fused = both(0.3, 384, dtype=torch.bfloat16)
    assert torch.equal(fused.argmax_ids, plain.argmax_ids)
    assert torch.equal(fused.sampled_ids, plain.sampled_ids)
    torch.testing.assert_close(fused.entropy, plain.entropy, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(fused.soft_embeddings.float(), plain.soft_embeddings.float(), atol=0.05, rtol=0.02)


def test_of_equal_logits_the_lowest_id_is_the_argmax():
    plain, fused = both(0.0, 384)
    assert fused.argmax_ids.unique().tolist() == plain.argmax_ids.unique().tolist() == [0]
