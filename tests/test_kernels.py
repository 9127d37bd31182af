import pytest
import torch

from dgasr import kernels
from dgasr.kernels import runs_kernels, warn_without_kernel


@pytest.mark.parametrize(
    ("device", "package", "runs"), [("cuda", object(), True), ("cuda", None, False), ("cpu", object(), False)]
)
def test_kernels_run_on_a_gpu_that_triton_is_installed_for(monkeypatch, device, package, runs):
    monkeypatch.setattr(kernels, "find_spec", lambda name: package)
    assert runs_kernels(torch.device(device)) is runs


def test_a_gpu_without_triton_is_told_of_once(monkeypatch, caplog):
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    warn_without_kernel.cache_clear()
    for _ in range(2):
        runs_kernels(torch.device("cuda"))
    assert caplog.text.count("Triton is not installed") == 1


def test_a_cpu_is_not_told_of(monkeypatch, caplog):
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    warn_without_kernel.cache_clear()
    runs_kernels(torch.device("cpu"))
    assert not caplog.text
