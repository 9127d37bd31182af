"""Muon and AdamW in one: matrices and kernels learn, rates follow the parts, and a stored state can be loaded."""

import os

import numpy as np
import torch
from torch import nn

from tests.forked import Forked
from tools.base.optimizer import PartsOptimizer

PEAKS = {"encoder.": 1e-3, "head.": 1e-2}


def parts():
    torch.manual_seed(0)
    return {
        "encoder.conv": nn.Parameter(torch.randn(6, 4, 3)),
        "encoder.bias": nn.Parameter(torch.randn(6)),
        "head.matrix": nn.Parameter(torch.randn(5, 8)),
    }


def steps(learning, optimizer, numbers):
    for number in numbers:
        optimizer.set_share(np.float64(0.5) + 0.1 * number)
        for index, parameter in enumerate(learning.values()):
            generator = torch.Generator().manual_seed(10 * number + index)
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


def test_a_stored_state_goes_on_as_if_nothing_had_been(tmp_path):
    whole = parts()
    steps(whole, PartsOptimizer(whole, PEAKS, lambda name: True), range(4))
    first = parts()
    optimizer = PartsOptimizer(first, PEAKS, lambda name: True)
    steps(first, optimizer, range(2))
    torch.save([optimizer.state_dict(), {name: p.detach() for name, p in first.items()}], tmp_path / "state.pt")
    state, weights = torch.load(tmp_path / "state.pt", weights_only=True)
    second = {name: nn.Parameter(tensor) for name, tensor in weights.items()}
    optimizer = PartsOptimizer(second, PEAKS, lambda name: True)
    optimizer.load_state_dict(state)
    steps(second, optimizer, range(2, 4))
    for name, parameter in whole.items():
        assert torch.equal(parameter, second[name]), name


def test_muon_moves_every_direction_of_a_matrix_alike():
    learning = {"head.matrix": nn.Parameter(torch.zeros(5, 8)), "head.bias": nn.Parameter(torch.zeros(5))}
    optimizer = PartsOptimizer(learning, PEAKS, lambda name: True)
    steps(learning, optimizer, [0])
    singular = torch.linalg.svdvals(learning["head.matrix"].detach())
    assert singular.max() < 2.5 * singular.min()


def test_who_is_not_muons_is_adamws():
    learning = parts()
    expected = torch.optim.AdamW([nn.Parameter(learning["head.matrix"].detach().clone())], lr=1e-2, betas=(0.9, 0.98))
    twin = expected.param_groups[0]["params"][0]
    optimizer = PartsOptimizer(learning, PEAKS, lambda name: not name.startswith("head."))
    optimizer.set_share(1.0)
    twin.grad = torch.ones(5, 8)
    learning["head.matrix"].grad = torch.ones(5, 8)
    expected.step()
    optimizer.step()
    torch.testing.assert_close(learning["head.matrix"], twin)


SAVES = """
import sys
from pathlib import Path
from torch import nn
from tests.forked import Forked
from tools.base.optimizer import PartsOptimizer

optimizer = PartsOptimizer({"a": nn.Parameter(nn.Linear(30, 30).weight)}, {"": 1e-3}, is_muons=lambda name: False)
for step in range(150):
    optimizer.save(Path(sys.argv[1]), step)
"""


def test_processes_of_a_killed_run_that_go_on_disturb_no_other(tmp_path):
    path = tmp_path / "state.pt"
    savers = [Forked(["-c", SAVES, str(path)], os.environ) for _ in range(2)]
    assert [saver.wait() for saver in savers] == [0, 0], "\n".join(saver.output for saver in savers)
    assert torch.load(path, weights_only=True)["step"] == 149
    assert list(tmp_path.iterdir()) == [path]
