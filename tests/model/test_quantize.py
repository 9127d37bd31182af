"""Weights of 8 bits. What needs torchao is skipped without it: `pip install 'dgasr[int8]'`."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from dgasr.errors import ConfigError
from dgasr.model.asr import AsrModel
from dgasr.model.presets import tiny
from dgasr.model.quantize import quantize
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
