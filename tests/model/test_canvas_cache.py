"""The decoder over prompts that stay in place, against transformers' own joining of caches. Equal to the bit."""

import pytest
import torch

from dgasr.model.asr import AsrModel, CanvasCache, keys_values
from dgasr.model.presets import tiny


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return AsrModel(tiny()).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def prompts(model):
    """Transformers' cache of three prompts, and each of them alone."""
    _, cache = model.prefill(torch.randn(3, 7, 128))
    return cache, [[(keys[row], values[row]) for keys, values in keys_values(cache)] for row in range(3)]


@pytest.mark.parametrize("canvas_tokens", [8, 32])
def test_a_step_is_the_one_that_transformers_cache_gives(model, prompts, canvas_tokens):
    plain, alone = prompts
    cache = CanvasCache(alone[0], 3, 32)
    cache.put(torch.arange(3), alone)
    canvas, soft = torch.randint(0, 24, (3, canvas_tokens)), torch.randn(3, canvas_tokens, 128)
    wanted = model.decode(canvas, soft, plain)
    assert torch.equal(model.decode(canvas, soft, cache), wanted)
    assert torch.equal(model.decode(canvas, soft, cache), wanted)


def test_a_row_that_changes_its_prompt_forgets_the_one_before(model, prompts):
    plain, alone = prompts
    cache = CanvasCache(alone[0], 3, 8)
    cache.put(torch.arange(3), [alone[2], alone[2], alone[0]])
    model.decode(torch.zeros(3, 8, dtype=torch.int64), None, cache)
    cache.put(torch.tensor([2, 0]), [alone[2], alone[0]])
    cache.put(torch.tensor([1]), [alone[1]])
    canvas = torch.arange(8).expand(3, 8)
    assert torch.equal(model.decode(canvas, None, cache), model.decode(canvas, None, plain))
