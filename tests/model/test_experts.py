import torch

from dgasr.model.backbone import EVERY_EXPERT, build_backbone
from dgasr.model.presets import tiny


def experts_of(implementation):
    torch.manual_seed(0)
    backbone = build_backbone(tiny())
    backbone.set_experts_implementation(implementation)
    experts = backbone.model.decoder.layers[0].experts
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return experts


def routed(tokens):
    generator = torch.Generator().manual_seed(1)
    shares, chosen = torch.rand(tokens, 4, generator=generator).topk(2, dim=-1)
    return torch.randn(tokens, 128, generator=generator), chosen, shares


def test_every_expert_is_what_small_models_run():
    backbone = build_backbone(tiny())
    assert backbone.model.decoder.config._experts_implementation == EVERY_EXPERT
    assert backbone.model.encoder.language_model.config._experts_implementation == EVERY_EXPERT


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
