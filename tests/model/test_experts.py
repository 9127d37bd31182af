from dataclasses import replace

import pytest
import torch
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from dgasr.model import backbone
from dgasr.model.asr import AsrModel
from dgasr.model.backbone import EVERY_EXPERT, build_backbone, choose_fused_experts, run_every_expert
from dgasr.model.presets import tiny


def experts_of(implementation):
    torch.manual_seed(0)
    built = build_backbone(tiny())
    built.set_experts_implementation(implementation)
    experts = built.model.decoder.layers[0].experts
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return experts


def routed(tokens):
    generator = torch.Generator().manual_seed(1)
    shares, chosen = torch.rand(tokens, 4, generator=generator).topk(2, dim=-1)
    return torch.randn(tokens, 128, generator=generator), chosen, shares


def test_every_expert_agrees_with_transformers_eager_experts_in_value_and_gradient():
    results = []
    for implementation in ("eager", EVERY_EXPERT):
        experts = experts_of(implementation)
        hidden, chosen, shares = routed(40)
        output = experts(hidden.requires_grad_(), chosen, shares)
        gradients = torch.autograd.grad(output.square().sum(), [hidden, *experts.parameters()])
        results.append((output, *gradients))
    for ours, theirs in zip(*results, strict=True):
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


def test_an_unchosen_expert_gets_no_gradient():
    experts = experts_of(EVERY_EXPERT)
    hidden = routed(6)[0]
    output = experts(hidden, torch.tensor([[0, 1]] * 6), torch.full((6, 2), 0.5))
    (gradient,) = torch.autograd.grad(output.sum(), experts.down_proj)
    assert gradient[0].any()
    assert not gradient[2:].any()


@torch.no_grad()
def test_a_tokens_bits_do_not_depend_on_how_many_tokens_come_with_it():
    experts = experts_of(EVERY_EXPERT)
    hidden, chosen, shares = routed(256)
    whole = experts(hidden, chosen, shares)
    for tokens in (8, 24, 96):
        assert torch.equal(experts(hidden[:tokens], chosen[:tokens], shares[:tokens]), whole[:tokens])


def fake(factor, fails=False):
    """A kernel whose results are those of every expert, times a factor."""

    def run(experts, hidden, top_k_index, top_k_weights):
        if fails:
            raise RuntimeError("no kernel image for this device")
        return factor * run_every_expert(experts, hidden, top_k_index, top_k_weights)

    return run


@pytest.mark.parametrize(
    ("kernels", "taken"),
    [
        ({"sonicmoe": fake(1.0), "deepgemm": fake(1.0)}, "sonicmoe"),
        ({"sonicmoe": fake(1.1), "deepgemm": fake(1.0)}, "deepgemm"),
        ({"sonicmoe": fake(1.0, fails=True)}, "grouped_mm"),
        ({}, "grouped_mm"),
    ],
)
def test_the_first_fused_kernel_that_runs_and_agrees_is_taken_and_told(monkeypatch, caplog, kernels, taken):
    config = replace(tiny(), backbone={**tiny().backbone, "num_experts": 16})
    model = AsrModel(config).eval().requires_grad_(False)
    monkeypatch.setattr(backbone, "FUSED_EXPERTS", {name: (lambda: True) for name in kernels})
    for name, kernel in kernels.items():
        monkeypatch.setitem(ALL_EXPERTS_FUNCTIONS._global_mapping, name, kernel)
    with caplog.at_level("INFO"):
        assert choose_fused_experts(model.backbone) == taken
    assert model.backbone.config.get_text_config()._experts_implementation == taken
    assert f"experts by {taken}" in caplog.text
    assert caplog.text.count("not used") == [*kernels, "grouped_mm"].index(taken)  # all before it


def test_few_experts_keep_their_bits_on_a_gpu_too(monkeypatch):
    monkeypatch.setattr(backbone, "FUSED_EXPERTS", {"sonicmoe": lambda: pytest.fail("asked")})
    built = build_backbone(tiny())
    assert choose_fused_experts(built) == EVERY_EXPERT
    assert built.model.decoder.config._experts_implementation == EVERY_EXPERT
    assert built.model.encoder.language_model.config._experts_implementation == EVERY_EXPERT
