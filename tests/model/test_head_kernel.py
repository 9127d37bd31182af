"""The Triton kernel of the vocabulary scan against torch's operations: on a GPU, else in Triton's interpreter."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton comes with torch for CUDA; without it no kernel runs")

from dgasr.model import head
from dgasr.model.head import log_partition, scan_fused, scan_plain, scan_vocabulary
from dgasr.model.head_kernel import COLUMNS

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
VOCAB = 2 * COLUMNS + 700


@pytest.fixture
def both(monkeypatch):
    """Scan by torch and by the kernel."""

    def scan(hidden, weight, chunk, bias=None, softcap=30.0):
        found = []
        for way in (scan_plain, scan_fused):
            monkeypatch.setattr(head, "_choose_scan", lambda device, way=way: way)
            found.append(scan_vocabulary(hidden, weight, softcap, chunk, bias))
        return found

    return scan


def case(spread, dtype=torch.float32):
    generator = torch.Generator().manual_seed(5)
    hidden = torch.randn(2, 3, 16, generator=generator)
    weight = torch.randn(VOCAB, 16, generator=generator) * spread
    return hidden.to(DEVICE, dtype), weight.to(DEVICE, dtype)


def assert_same(found):
    plain, fused = found
    assert torch.equal(fused.ids, plain.ids)
    torch.testing.assert_close(fused.top_logit, plain.top_logit, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(fused.log_partition, plain.log_partition, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("bias", [None, (4, 3.0), (COLUMNS + 9, 40.0)], ids=["none", "small", "decides"])
@pytest.mark.parametrize("chunk", [VOCAB, COLUMNS, 1000], ids=["one", "whole parts", "remainders"])
@pytest.mark.parametrize("spread", [0.01, 3.0])
def test_the_kernel_gives_the_numbers_of_torchs_operations(both, spread, chunk, bias):
    for dtype in (torch.float32, torch.bfloat16):
        assert_same(both(*case(spread, dtype), chunk, bias))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_logits_at_either_end_of_the_softcap_stay_in_range(both, sign):
    hidden, weight = torch.ones(2, 4, device=DEVICE), torch.full((VOCAB, 4), 1000.0 * sign, device=DEVICE)
    found = both(hidden, weight, 1000)
    assert_same(found)
    assert found[1].log_partition[0].item() == pytest.approx(30.0 * sign + torch.tensor(VOCAB).log().item(), abs=1e-3)


def test_of_equal_logits_the_lowest_id_wins(both):
    plain, fused = both(torch.ones(2, 4, device=DEVICE), torch.zeros(VOCAB, 4, device=DEVICE), 3 * COLUMNS)
    assert fused.ids.tolist() == plain.ids.tolist() == [0, 0]


def test_the_streamed_gradient_goes_through_it(monkeypatch):
    hidden, weight = case(0.3)
    gradients = []
    for way in (scan_plain, scan_fused):
        monkeypatch.setattr(head, "_choose_scan", lambda device, way=way: way)
        states = hidden.clone().requires_grad_(True)
        log_partition(states, weight, 30.0, 1000).sum().backward()
        gradients.append(states.grad)
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-4, rtol=1e-4)
