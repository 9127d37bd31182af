"""The vocabulary head against the plain formula over the whole vocabulary."""

import pytest
import torch

from dgasr import device as devices
from dgasr.model import head
from dgasr.model.head import label_logits, log_partition, scan_vocabulary

SOFTCAP = 30.0
BLANK = (4, 3.0)


def plain_logits(hidden, weight, bias=BLANK):
    logits = SOFTCAP * torch.tanh(hidden @ weight.T / SOFTCAP)
    if bias is not None:
        logits = logits + bias[1] * torch.nn.functional.one_hot(torch.tensor(bias[0]), weight.shape[0])
    return logits


def example(vocab=37, hidden_size=16, rows=(3, 5), dtype=torch.float64, scale=3.0):
    generator = torch.Generator().manual_seed(7)
    hidden = torch.randn(*rows, hidden_size, generator=generator, dtype=dtype) * scale
    weight = torch.randn(vocab, hidden_size, generator=generator, dtype=dtype)
    return hidden, weight


@pytest.mark.parametrize("chunk", [1, 10, 37, 100])
@pytest.mark.parametrize("bias", [None, BLANK, (36, -2.0)])
def test_log_partition_is_the_plain_logsumexp_for_any_chunk(chunk, bias):
    hidden, weight = example()
    expected = plain_logits(hidden, weight, bias).logsumexp(-1)
    torch.testing.assert_close(
        log_partition(hidden, weight, SOFTCAP, chunk, bias).double(), expected, rtol=1e-6, atol=1e-5
    )


@pytest.mark.parametrize("chunk", [10, 100])
def test_log_partition_gradients_are_those_of_the_plain_formula(chunk):
    hidden, weight = (tensor.requires_grad_() for tensor in example())
    upstream = torch.linspace(-1, 2, 15, dtype=torch.float64).reshape(3, 5)
    expected = torch.autograd.grad((plain_logits(hidden, weight).logsumexp(-1) * upstream).sum(), (hidden, weight))
    ours = torch.autograd.grad(
        (log_partition(hidden, weight, SOFTCAP, chunk, BLANK) * upstream).sum(), (hidden, weight)
    )
    for mine, theirs in zip(ours, expected, strict=True):
        assert (mine - theirs).norm() <= 1e-5 * theirs.norm()


def test_log_partition_gradient_agrees_with_finite_differences():
    hidden, weight = example(rows=(1,))
    hidden.requires_grad_()
    (gradient,) = torch.autograd.grad(log_partition(hidden, weight, SOFTCAP, 10, BLANK).sum(), hidden)
    direction = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(1), dtype=hidden.dtype)
    step = 1e-5
    with torch.no_grad():
        forth, back = (plain_logits(hidden + sign * step * direction, weight).logsumexp(-1) for sign in (1, -1))
    assert ((forth - back) / (2 * step)).item() == pytest.approx((gradient * direction).sum().item(), rel=1e-4)


@pytest.mark.parametrize("learns", ["hidden", "weight"])
def test_what_does_not_learn_receives_no_gradient(learns):
    tensors = dict(zip(("hidden", "weight"), example(), strict=True))
    tensors[learns].requires_grad_()
    log_partition(*tensors.values(), SOFTCAP, 10).sum().backward()
    assert [name for name, tensor in tensors.items() if tensor.grad is not None] == [learns]


def test_bfloat16_inputs_are_summed_in_float32():
    hidden, weight = (tensor.bfloat16() for tensor in example(vocab=500, hidden_size=64, dtype=torch.float32))
    expected = plain_logits(hidden.double(), weight.double()).logsumexp(-1)
    ours = log_partition(hidden.requires_grad_(), weight, SOFTCAP, 100, BLANK)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.detach().double(), expected, rtol=1e-6, atol=1e-5)
    ours.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.dtype == torch.bfloat16


def test_autocast_does_not_round_the_logits():
    hidden, weight = (tensor.float() for tensor in example(vocab=500, hidden_size=64))
    expected = log_partition(hidden, weight, SOFTCAP, 100)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(log_partition(hidden, weight, SOFTCAP, 100), expected)


def test_label_logits_are_columns_of_all_logits():
    hidden, weight = example()
    ids = torch.tensor([[4, 0, 4], [36, 1, 2], [5, 5, 5]])
    expected = plain_logits(hidden, weight).gather(-1, ids.unsqueeze(1).expand(3, 5, 3))
    ours = label_logits(hidden, weight, ids, SOFTCAP, BLANK)
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 10, 100])
def test_a_scan_finds_the_argmax_and_its_log_probability(chunk):
    hidden, weight = example()
    expected, ids = plain_logits(hidden, weight).log_softmax(-1).max(-1)
    found = scan_vocabulary(hidden, weight, SOFTCAP, chunk, BLANK)
    assert torch.equal(found.ids, ids)
    torch.testing.assert_close((found.top_logit - found.log_partition).double(), expected, rtol=1e-5, atol=1e-5)


def test_the_lowest_of_equal_ids_wins_whatever_the_chunk():
    hidden, weight = example()
    twins = torch.cat([weight, weight])
    one, other = (scan_vocabulary(hidden, twins, SOFTCAP, chunk).ids for chunk in (10, 100))
    assert torch.equal(one, other)
    assert bool((one < 37).all())


def test_no_tensor_of_the_vocabularys_width_is_made():
    hidden, weight = example(vocab=20_000, hidden_size=8, rows=(50,), dtype=torch.float32)
    hidden.requires_grad_()
    with torch.profiler.profile(profile_memory=True) as profile:
        log_partition(hidden, weight, SOFTCAP, 256).sum().backward()
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest <= 8 * 50 * 256 * 4  # an operator holds a few tensors of [rows, chunk]; all logits are 78 of them


def test_the_vocabulary_is_scanned_by_torchs_operations_on_the_cpu_and_on_a_gpu_without_triton(monkeypatch):
    assert head._choose_scan(torch.device("cpu")) is head.scan_plain
    for found, scan in ((None, head.scan_plain), (object(), head.scan_fused)):
        monkeypatch.setattr(devices, "find_spec", lambda name, found=found: found)
        assert head._choose_scan(torch.device("cuda")) is scan
