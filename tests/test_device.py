import pytest
import torch

from dgasr import device as devices
from dgasr.device import fetch, runs_kernels, warn_without_kernel


@pytest.mark.parametrize(
    ("device", "package", "runs"), [("cuda", object(), True), ("cuda", None, False), ("cpu", object(), False)]
)
def test_kernels_run_on_a_gpu_that_triton_is_installed_for(monkeypatch, device, package, runs):
    monkeypatch.setattr(devices, "find_spec", lambda name: package)
    assert runs_kernels(torch.device(device)) is runs


@pytest.mark.parametrize(("device", "lines"), [("cuda", 1), ("cpu", 0)])
def test_a_gpu_without_triton_is_told_of_once(monkeypatch, caplog, device, lines):
    monkeypatch.setattr(devices, "find_spec", lambda name: None)
    warn_without_kernel.cache_clear()
    for _ in range(2):
        runs_kernels(torch.device(device))
    assert caplog.text.count("Triton is not installed") == lines


def test_tensors_of_any_kind_are_fetched_together_as_they_are():
    tensors = [torch.arange(6).view(2, 3), torch.tensor([0.5]), torch.empty(0), torch.tensor(262_143)]
    for fetched, tensor in zip(fetch(tensors), tensors, strict=True):
        assert fetched.shape == tensor.shape
        assert fetched.tolist() == tensor.tolist()
