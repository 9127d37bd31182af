import pytest
import torch
import torch.nn.functional as F

from benchmarks.parity import sample
from dgasr import device as devices
from dgasr.diffusion.noise import SegmentNoise, key_words
from dgasr.diffusion.vocabulary import VocabularyHead, choose_reader, num_chunks, read_chunk, read_vocabulary

SOFTCAP = 30.0


def make(vocab=1000, rows=3, canvas=5, width=32, spread=1.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(7)
    hidden = torch.randn(rows, canvas, width, generator=generator)
    weight = torch.randn(vocab, width, generator=generator) * spread
    return hidden.to(dtype), VocabularyHead(weight=weight.to(dtype), softcap=SOFTCAP, embed_scale=width**0.5)


def uniforms_for(rows, canvas, chunks, first_key=0, step=0):
    keys = key_words(list(range(first_key, first_key + rows)), torch.device("cpu"))
    return SegmentNoise(keys, torch.full((rows,), step)).sample_uniforms(canvas, chunks)


def read(hidden, head, temperature, chunk):
    rows, canvas, _ = hidden.shape
    uniforms = uniforms_for(rows, canvas, num_chunks(head.vocab_size, chunk))
    return read_vocabulary(hidden, head, torch.tensor(temperature), uniforms, chunk), uniforms


def plain_logits(hidden, head):
    return SOFTCAP * torch.tanh(F.linear(hidden.double(), head.weight.double()) / SOFTCAP)


TEMPERATURES = [0.8, 0.45, 0.4]
CHUNKS = [pytest.param(1000, id="one"), pytest.param(250, id="equal"), pytest.param(384, id="remainder")]


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("spread", [0.01, 0.3, 3.0])
def test_every_statistic_is_that_of_the_whole_logits(chunk, spread):
    hidden, head = make(spread=spread)
    statistics, uniforms = read(hidden, head, TEMPERATURES, chunk)
    plain = plain_logits(hidden, head)
    tempered = plain / torch.tensor(TEMPERATURES).double()[:, None, None]
    assert torch.equal(statistics.argmax_ids, plain.argmax(-1))
    expected = plain.log_softmax(-1).amax(-1)
    torch.testing.assert_close(statistics.argmax_log_probability.double(), expected, atol=2e-5, rtol=1e-5)
    expected = torch.distributions.Categorical(logits=tempered).entropy()
    torch.testing.assert_close(statistics.entropy.double(), expected, atol=2e-5, rtol=1e-5)
    expected = tempered.softmax(-1) @ head.weight.double() * head.embed_scale
    torch.testing.assert_close(statistics.soft_embeddings.double(), expected, atol=1e-4, rtol=1e-4)
    probabilities = tempered.softmax(-1).flatten(0, 1)
    sampled = [sample(row, draws, chunk) for row, draws in zip(probabilities, uniforms.flatten(0, 1), strict=True)]
    assert statistics.sampled_ids.flatten().tolist() == sampled


@pytest.mark.parametrize(("vocab", "chunk"), [(24, 8192), (24, 7), (300, 150)])
def test_samples_follow_the_distribution(vocab, chunk):
    hidden, head = make(vocab=vocab, rows=1, canvas=1, spread=0.15)
    num_draws = 20_000
    many = hidden.expand(num_draws, 1, -1)
    uniforms = uniforms_for(num_draws, 1, num_chunks(vocab, chunk))
    sampled = read_vocabulary(many, head, torch.full((num_draws,), 0.7), uniforms, chunk).sampled_ids
    probabilities = (plain_logits(hidden, head)[0, 0] / 0.7).softmax(-1)
    counts = torch.bincount(sampled.flatten(), minlength=vocab).double()
    expected = probabilities * num_draws
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    # Wilson-Hilferty: about 3.1 standard deviations, exceeded once in a thousand
    freedom = vocab - 1
    assert chi_square < freedom * (1 - 2 / (9 * freedom) + 3.1 * (2 / (9 * freedom)) ** 0.5) ** 3


def test_the_entropy_of_a_sure_position_keeps_its_digits():
    head = VocabularyHead(weight=torch.tensor([[25.0], [9.0], [8.9]]), softcap=1000.0, embed_scale=1.0)
    statistics, _ = read(torch.ones(1, 1, 1), head, [1.0], 2)
    exact = (head.softcap * torch.tanh(head.weight.double() / head.softcap)).flatten()
    expected = torch.distributions.Categorical(logits=exact).entropy()
    torch.testing.assert_close(statistics.entropy[0, 0].double(), expected, rtol=0, atol=1e-7)


def test_a_temperature_far_below_the_schedule_does_not_overflow():
    hidden, head = make(spread=3.0, rows=1)
    statistics, _ = read(hidden, head, [1e-3], 250)
    expected = head.weight[statistics.argmax_ids] * head.embed_scale
    torch.testing.assert_close(statistics.soft_embeddings, expected)
    assert torch.equal(statistics.sampled_ids, statistics.argmax_ids)


def test_of_equal_logits_the_lowest_id_is_the_argmax():
    head = VocabularyHead(weight=torch.ones(6, 4), softcap=SOFTCAP, embed_scale=1.0)
    statistics, _ = read(torch.ones(1, 2, 4), head, [1.0], 2)
    assert statistics.argmax_ids.tolist() == [[0, 0]]


def test_bfloat16_stays_near_float32():
    hidden, head = make(dtype=torch.bfloat16, spread=0.3)
    statistics, _ = read(hidden, head, TEMPERATURES, 384)
    logits = F.linear(hidden, head.weight).float()  # as transformers rounds them
    tempered = SOFTCAP * torch.tanh(logits / SOFTCAP) / torch.tensor(TEMPERATURES)[:, None, None]
    expected = tempered.softmax(-1) @ head.weight.float() * head.embed_scale
    assert statistics.soft_embeddings.dtype == torch.bfloat16
    torch.testing.assert_close(statistics.soft_embeddings.float(), expected, atol=0.05, rtol=0.02)


def test_no_tensor_is_as_wide_as_the_vocabulary():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Widest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.untyped_storage().data_ptr() not in known:
                Widest.numel = max(Widest.numel, result.numel())
            return result

    hidden, head = make(vocab=10_000)
    uniforms = uniforms_for(3, 5, num_chunks(10_000, 256))
    known = {head.weight.untyped_storage().data_ptr(), uniforms.untyped_storage().data_ptr()}
    with Widest():
        read_vocabulary(hidden, head, torch.tensor(TEMPERATURES), uniforms, 256)
    assert Widest.numel == 15 * 256


def test_the_vocabulary_is_read_by_torchs_operations_on_the_cpu_and_on_a_gpu_without_triton(monkeypatch):
    assert choose_reader(make()[1], 0.4) is read_chunk
    weight = type("OnGpu", (), {"device": torch.device("cuda"), "dtype": torch.bfloat16})
    monkeypatch.setattr(devices, "find_spec", lambda name: None)
    assert choose_reader(VocabularyHead(weight=weight, softcap=SOFTCAP, embed_scale=1.0), 0.4) is read_chunk
