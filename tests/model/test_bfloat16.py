"""Fast ways through the decoder in bfloat16: none is further from float32 than the plain way, by more than a fifth."""

import copy

import pytest
import torch

from dgasr.model.adapter import add_lora, merge_lora
from dgasr.model.asr import AsrModel, CanvasCache, keys_values
from dgasr.model.presets import LoraSize, tiny

ROWS, PROMPT, CANVAS = 3, 11, 16
ALLOWED = 1.2
"""Rounding is chance: what is no worse on the whole may be a little worse on one input."""


@pytest.fixture(scope="module")
def model():
    """Numbers that bfloat16 holds, in float32, with LoRA that counts."""
    torch.manual_seed(0)
    model = AsrModel(tiny())
    add_lora(model, LoraSize(rank=4, alpha=8))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return narrowed(model).float().eval().requires_grad_(False)


def narrowed(model):
    """The model in bfloat16; buffers, among them rotary frequencies, keep their type, as when weights are loaded."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    return model


@torch.no_grad()
def states_of(model, *, in_place=False):
    """Hidden states of one decoder call over prompts."""
    generator = torch.Generator().manual_seed(1)
    prompt = torch.randn(ROWS, PROMPT, 128, generator=generator).to(torch.bfloat16)
    canvas = torch.randint(0, 24, (ROWS, CANVAS), generator=generator)
    soft = torch.randn(ROWS, CANVAS, 128, generator=generator).to(torch.bfloat16)
    dtype = model.head_weight.dtype
    _, cache = model.prefill(prompt.to(dtype))
    if in_place:
        prompts = [[(keys[row], values[row]) for keys, values in keys_values(cache)] for row in range(ROWS)]
        cache = CanvasCache(prompts[0], ROWS, CANVAS)
        cache.put(torch.arange(ROWS), prompts)
    return model.decode(canvas, soft.to(dtype), cache).float()


def keep_prompts_in_place(model):
    return states_of(model, in_place=True)


def group_experts(model):
    model.backbone.set_experts_implementation("grouped_mm")
    return states_of(model)


def merge_the_adapter(model):
    merge_lora(model)
    return states_of(model)


@pytest.mark.parametrize("way", [keep_prompts_in_place, group_experts, merge_the_adapter])
def test_a_fast_way_rounds_no_worse_than_the_plain_one(model, way):
    exact = states_of(model)
    plain = narrowed(copy.deepcopy(model))
    fast = way(copy.deepcopy(plain))
    lost, lost_fast = ((states - exact).norm() / exact.norm() for states in (states_of(plain), fast))
    assert 0 < lost < 0.15, "of which most is routing: of random weights it is decided by rounding"
    assert lost_fast <= ALLOWED * lost
