"""Cross-entropy and CTC against the plain formulas: full log_softmax, torch's ctc_loss, finite differences."""

import pytest
import torch
import torch.nn.functional as F

from dgasr.training.objective import cross_entropy, ctc

SOFTCAP = 30.0
BLANK, BLANK_BIAS = 3, 2.5


def example(vocab=40, hidden_size=12, batch=4, frames=14, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(batch, frames, hidden_size, generator=generator, dtype=dtype) * 2
    weight = torch.randn(vocab, hidden_size, generator=generator, dtype=dtype)
    labels = torch.tensor([[5, 5, 6, 9], [7, 8, 7, -100], [0, 39, -100, -100], [-100] * 4])
    return hidden, weight, labels, torch.tensor([4, 3, 2, 0]), torch.tensor([14, 9, 12, 11])


def plain_ctc(hidden, weight, labels, label_lengths, frame_lengths):
    logits = SOFTCAP * torch.tanh(hidden @ weight.T / SOFTCAP)
    logits = logits + BLANK_BIAS * F.one_hot(torch.tensor(BLANK), weight.shape[0])
    log_probs = logits.log_softmax(-1).transpose(0, 1)
    return F.ctc_loss(log_probs, labels.clamp(min=0), frame_lengths, label_lengths, blank=BLANK, reduction="none")


def our_ctc(*inputs, chunk=16):
    return ctc(*inputs, blank=BLANK, blank_bias=BLANK_BIAS, softcap=SOFTCAP, chunk=chunk)


@pytest.mark.parametrize("chunk", [16, 64])
def test_cross_entropy_is_the_plain_one_in_value_and_gradient(chunk):
    hidden, weight, *_ = example()
    hidden = hidden.flatten(0, 1).requires_grad_()
    targets = torch.arange(len(hidden)) % 40
    logits = SOFTCAP * torch.tanh(hidden @ weight.T / SOFTCAP)
    expected = F.cross_entropy(logits, targets, reduction="none")
    ours = cross_entropy(hidden, weight, targets, SOFTCAP, chunk)
    torch.testing.assert_close(ours.double(), expected, rtol=1e-6, atol=1e-5)
    mine, theirs = (torch.autograd.grad(nll.sum(), hidden)[0] for nll in (ours, expected))
    assert (mine - theirs).norm() <= 1e-5 * theirs.norm()


@pytest.mark.parametrize("chunk", [16, 64])
def test_ctc_is_that_of_the_whole_vocabulary_in_value_and_gradient(chunk):
    hidden, weight, *rest = example()
    hidden.requires_grad_()
    weight.requires_grad_()
    ours, expected = our_ctc(hidden, weight, *rest, chunk=chunk), plain_ctc(hidden, weight, *rest)
    assert bool(ours.feasible.all())
    assert bool(((ours.nll.double() / expected - 1).abs() <= 1e-6).all())
    upstream = torch.tensor([1.0, -0.5, 2.0, 0.25])
    gradients = (torch.autograd.grad((nll * upstream).sum(), (hidden, weight)) for nll in (ours.nll, expected))
    for mine, theirs in zip(*gradients, strict=True):
        assert (mine - theirs).norm() <= 1e-4 * theirs.norm()
    # Frames past the length have no gradient.
    (gradient,) = torch.autograd.grad(our_ctc(hidden, weight, *rest).nll.sum(), hidden)
    assert not gradient[1, 9:].any()
    assert gradient[1, 8].any()


def test_ctc_gradient_agrees_with_finite_differences():
    hidden, weight, *rest = example()
    hidden.requires_grad_()
    (gradient,) = torch.autograd.grad(our_ctc(hidden, weight, *rest).nll.sum(), hidden)
    direction = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(1), dtype=hidden.dtype)
    with torch.no_grad():
        forth, back = (plain_ctc(hidden + sign * 1e-5 * direction, weight, *rest).sum() for sign in (1, -1))
    assert ((forth - back) / 2e-5).item() == pytest.approx((gradient * direction).sum().item(), rel=1e-4)


def test_equal_neighbours_need_a_blank_between_them():
    hidden, weight, *_ = example(batch=1, frames=3)
    two_equal = torch.tensor([[5, 5]]), torch.tensor([2])
    assert bool(our_ctc(hidden, weight, *two_equal, torch.tensor([3])).feasible.all())
    assert not bool(our_ctc(hidden, weight, *two_equal, torch.tensor([2])).feasible.any())


def test_an_infeasible_row_costs_nothing_and_is_reported():
    hidden, weight, labels, label_lengths, _ = example()
    hidden.requires_grad_()
    nll, feasible = our_ctc(hidden, weight, labels, label_lengths, torch.tensor([4, 9, 1, 0]))
    assert feasible.tolist() == [False, True, False, False]
    (gradient,) = torch.autograd.grad(nll.sum(), hidden)
    assert nll[[0, 2, 3]].tolist() == [0, 0, 0]
    assert not gradient[[0, 2, 3]].any()
    assert bool(gradient[1].isfinite().all())
    assert gradient[1].any()


def test_a_batch_without_any_label_is_all_blank():
    hidden, weight, _, _, frame_lengths = example()
    inputs = hidden, weight, torch.zeros(4, 0, dtype=torch.long), torch.zeros(4, dtype=torch.long), frame_lengths
    nll, feasible = our_ctc(*inputs)
    expected = plain_ctc(hidden, weight, torch.ones(4, 1, dtype=torch.long), inputs[3], frame_lengths)
    torch.testing.assert_close(nll.double(), expected, rtol=1e-6, atol=1e-5)
    assert bool(feasible.all())


def test_bfloat16_states_give_the_loss_of_their_exact_values():
    hidden, weight, *rest = example()
    hidden, weight = hidden.bfloat16().requires_grad_(), weight.bfloat16()
    ours = our_ctc(hidden, weight, *rest).nll
    expected = plain_ctc(hidden.double(), weight.double(), *rest)
    torch.testing.assert_close(ours.double(), expected, rtol=1e-6, atol=1e-5)
    mine, theirs = (torch.autograd.grad(nll.sum(), hidden)[0].double() for nll in (ours, expected))
    assert (mine - theirs).norm() <= 1e-2 * theirs.norm()


def test_ctc_makes_no_tensor_of_the_vocabularys_width():
    hidden, weight, *rest = example(vocab=20_000, dtype=torch.float32)
    hidden.requires_grad_()
    with torch.profiler.profile(profile_memory=True) as profile:
        our_ctc(hidden, weight, *rest, chunk=256).nll.sum().backward()
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest <= 8 * 4 * 14 * 256 * 4  # a few tensors of [rows, chunk]; all logits are 78 of them
