"""The decoder as one compiled graph; and that a step of it never waits for the device."""

from dataclasses import replace

import pytest
import torch

from dgasr.diffusion import CanvasJob, DecodeConfig
from dgasr.diffusion.sampler import CanvasRows
from dgasr.diffusion.vocabulary import VocabularyHead
from dgasr.model.asr import AsrModel, CanvasCache
from dgasr.model.presets import tiny

PROMPT_TOKENS = 5


@pytest.fixture(scope="module")
def config():
    """Tiny with one layer of each kind."""
    layers = {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]}
    return replace(tiny(), backbone={**tiny().backbone, **layers})


def build(config, device="cpu"):
    torch.manual_seed(0)
    with torch.device(device):
        return AsrModel(config).eval().requires_grad_(False)


def filled_cache(model, num_rows):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        pair = torch.randn(2, 2, PROMPT_TOKENS, 32).to(model.device, model.head_weight.dtype)
        prompt = [(pair[0], pair[1])] * 2
    cache = CanvasCache(prompt, num_rows, 16)
    cache.put(torch.arange(num_rows, device=model.device), [prompt] * num_rows)
    return cache


@torch.no_grad()
def test_a_compiled_decoder_is_one_graph_and_gives_the_same(config):
    plain, compiled, made = build(config), build(config), []
    # Without making code of it, which takes a compiler and a minute; that it is one graph is torch's error or not.
    compiled.compile_decoder(backend=lambda graph, inputs: made.append(graph) or graph.forward)
    for seed in (0, 1):
        torch.manual_seed(seed)
        ids, soft = torch.randint(0, 24, (3, 8)), torch.randn(3, 8, 128)
        found = [model.decode(ids, soft, filled_cache(model, 3)) for model in (plain, compiled)]
        torch.testing.assert_close(found[1], found[0], atol=1e-4, rtol=1e-4)
    assert compiled._soft_embeddings is None
    assert len(made) == 1  # another batch of the same shape, with a cache of its own, takes no other graph


def broken(graph, inputs):
    raise OSError("no C compiler")


@torch.no_grad()
def test_a_decoder_that_cannot_be_compiled_runs_as_it_is_where_nobody_asked_for_it(config, caplog):
    model = build(config)
    ids, soft = torch.zeros(2, 8, dtype=torch.int64), torch.zeros(2, 8, 128)
    plain = model.decode(ids, soft, filled_cache(model, 2))
    model.compile_decoder(backend=broken)
    with pytest.raises(RuntimeError, match="no C compiler"):
        model.decode(ids, soft, filled_cache(model, 2))
    model.compile_decoder(backend=broken, may_fall_back=True)
    assert torch.equal(model.decode(ids, soft, filled_cache(model, 2)), plain)
    assert "cannot be compiled here" in caplog.text


@pytest.mark.parametrize("experts", ["every_expert", "grouped_mm"])
def test_a_step_asks_the_device_for_no_value(config, experts, monkeypatch):
    # Tensors of the meta device have no values: whoever asks for one gets an error.
    model = build(config, "meta").to(torch.bfloat16)
    model.backbone.set_experts_implementation(experts)
    head = VocabularyHead(weight=model.head_weight, softcap=30.0, embed_scale=1.0)
    rows = CanvasRows(3, 8, head, DecodeConfig())
    cache = filled_cache(model, 3)
    rows.begin([0, 1, 2], [CanvasJob(noise_key=key, canvas_tokens=8, payload=None) for key in range(3)])
    with torch.no_grad():
        settled = rows.step(lambda ids, soft: model.decode(ids, soft, cache))
    assert settled.shape == (3,)
    with pytest.raises(RuntimeError):
        settled.tolist()
