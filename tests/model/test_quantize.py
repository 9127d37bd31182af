"""Weights of 8 bits. What needs torchao is skipped without it: `pip install 'dgasr[int8]'`."""

import copy
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from dgasr.errors import ConfigError
from dgasr.model.asr import AsrModel
from dgasr.model.presets import tiny
from dgasr.model.quantize import IntegerLinear, multiplies_integers, multiply_integers, quantize
from dgasr.transcriber import load, loading


def weight_bytes(module):
    held = [part for weight in module.parameters() for part in ([weight.qdata, weight.scale] if hasattr(weight, "qdata")
            else [weight])]  # fmt: skip
    return sum(part.numel() * part.element_size() for part in held)


@pytest.fixture(params=[4, 12], ids=["every expert", "grouped"])
def models(request):
    """Equal models, one of them narrowed."""
    pytest.importorskip("torchao", reason="an extra of its own: pip install 'dgasr[int8]'")
    torch.manual_seed(0)
    config = replace(tiny(), backbone={**tiny().backbone, "num_experts": request.param})
    plain, narrow = AsrModel(config).eval(), AsrModel(config).eval()
    narrow.load_state_dict(plain.state_dict())
    for model in (plain, narrow):
        model.requires_grad_(False)
    quantize(narrow.backbone, torch.device("cpu"))
    return plain, narrow


def test_without_torchao_the_way_to_get_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(ConfigError, match=r"--quantize int8 .*pip install 'dgasr\[int8\]'"):
        quantize(None, torch.device("cpu"))


def test_each_matrix_is_on_the_device_before_it_is_narrowed(monkeypatch):
    narrowed = []
    kind = SimpleNamespace(from_hp=lambda weight, granularity: narrowed.append(weight.device.type) or weight)
    monkeypatch.setitem(sys.modules, "torchao.quantization", SimpleNamespace(Int8Tensor=kind, PerRow=lambda: None))
    monkeypatch.setattr(loading, "choose_device", torch.device)
    load("tiny", device="meta", quantize="int8")
    assert len(narrowed) > 10
    assert set(narrowed) == {"meta"}


def test_matrices_take_a_quarter_of_float32_and_stay_tied(models):
    plain, narrow = (model.backbone for model in models)
    assert weight_bytes(narrow.model.decoder.layers) < 0.35 * weight_bytes(plain.model.decoder.layers)
    layers = [part.layers[0] for part in (narrow.model.encoder.language_model, narrow.model.decoder)]
    assert layers[0].mlp.gate_proj.weight is layers[1].mlp.gate_proj.weight
    assert layers[0].experts.down_proj is layers[1].experts.down_proj
    assert narrow.lm_head.weight.dtype == torch.float32


@torch.no_grad()
def test_experts_and_dense_layers_give_nearly_what_they_gave(models):
    # Layer by layer: of random weights the router chooses by differences that rounding decides.
    layers = [model.backbone.model.decoder.layers[0] for model in models]
    hidden, chosen = torch.randn(7, 128), torch.tensor([[0, 3]] * 7)
    shares = torch.tensor([[0.75, 0.25]] * 7)
    for run in (lambda layer: layer.experts(hidden, chosen, shares), lambda layer: layer.mlp(hidden)):
        plain, narrow = map(run, layers)
        assert 0 < (narrow - plain).norm() / plain.norm() < 0.02


pytestmark = pytest.mark.skipif(not multiplies_integers(), reason="torch has no FBGEMM on this processor")


def made(linear):
    """A linear layer and its `IntegerLinear`."""
    holder = nn.ModuleDict({"only": copy.deepcopy(linear)})
    multiply_integers(holder)
    assert isinstance(holder["only"], IntegerLinear)
    return holder["only"]


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return nn.Linear(640, 96).requires_grad_(False)


@pytest.fixture
def rows():
    torch.manual_seed(1)
    return torch.randn(21, 640) * torch.logspace(-3, 3, 21).unsqueeze(1)


def test_it_multiplies_integers_one_by_one(linear, rows):
    """The slow way: every number rounded to its step, and whole numbers summed."""
    wide, weight = rows.numpy(), linear.weight.numpy()
    input_scale = np.abs(wide).max(axis=1, keepdims=True)
    weight_scale = np.abs(weight).max(axis=1, keepdims=True) / np.float32(127)
    inputs = np.rint(wide / input_scale * np.float32(63)).astype(np.int64)
    sums = inputs @ np.rint(weight / weight_scale).astype(np.int64).T
    slow = sums * (input_scale / 63.0) * weight_scale.T + linear.bias.numpy()
    found = made(linear)(rows).numpy()
    # An input that lies half-way between two steps may be rounded to either: one step of one weight's size.
    assert np.abs(found - slow).max(axis=1) == pytest.approx(0, abs=1e-5 * input_scale.max())
    assert np.median(np.abs(found - slow) / input_scale) < 1e-6


def test_it_is_close_to_float32(linear, rows):
    exact = linear(rows)
    error = (made(linear)(rows) - exact).norm(dim=1) / exact.norm(dim=1)
    assert error.max() < 0.03


@pytest.mark.parametrize("num_rows", [1, 3, 4, 16])
def test_a_row_depends_on_itself_alone(linear, rows, num_rows):
    layer = made(linear)
    assert torch.equal(torch.cat([layer(part) for part in rows.split(num_rows)]), layer(rows))


def test_the_largest_sums_fit(linear):
    """Where pairs of products are added up in 16 bits, 8-bit inputs would be cut off: 2 x 127 x 255 > 32,767."""
    linear.weight.fill_(2.0)
    linear.bias.zero_()
    found = made(linear)(torch.stack([torch.full((640,), 3.0), torch.full((640,), -3.0)]))
    assert found.T.numpy() == pytest.approx(np.array([[3840.0, -3840.0]] * 96), rel=1e-5)


def test_a_row_of_zeros_gives_the_bias(linear):
    assert torch.equal(made(linear)(torch.zeros(2, 640)), linear.bias.expand(2, -1))


def test_layers_share_weights_and_lora_stays():
    block = nn.ModuleDict({"first": nn.Linear(8, 8), "second": nn.Linear(8, 8), "lora_A": nn.Linear(8, 2)})
    block["second"].weight = block["first"].weight
    multiply_integers(block)
    assert block["first"]._packed is block["second"]._packed
    assert type(block["lora_A"]) is nn.Linear
