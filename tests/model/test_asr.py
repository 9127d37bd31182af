from dataclasses import replace

import pytest
import torch
from transformers.cache_utils import DynamicCache

from dgasr.model.asr import CanvasCache, keys_values


def prompt(model):
    audio = model.config.prompt.audio_id
    return torch.tensor([2, 6, *[audio] * model.config.num_audio_tokens, 7])


def prefilled(model, batch=2):
    frames = model.encode_audio(torch.randn(batch, 80, 800, generator=torch.Generator().manual_seed(1)))
    return model.prefill(model.prompt_embeddings(prompt(model), model.projector(frames)))


def test_audio_embeddings_of_each_row_lie_in_its_audio_slots_and_nowhere_else(random_model):
    audio = torch.randn(2, 50, 128)
    embeddings = random_model.prompt_embeddings(prompt(random_model), audio)
    text = random_model.backbone.model.encoder.get_input_embeddings()(prompt(random_model))
    assert torch.equal(embeddings[:, 2:52], audio)
    assert torch.equal(embeddings[0, [0, 1, 52]], text[[0, 1, 52]])


def test_prefill_by_embeddings_equals_transformers_prefill_by_ids(random_model):
    ids = torch.tensor([[2, 9, 10, 11]])
    embeddings = random_model.backbone.model.encoder.get_input_embeddings()(ids)
    states, cache = random_model.prefill(embeddings)
    wanted = random_model.backbone.model.encoder(input_ids=ids, past_key_values=DynamicCache())
    assert torch.equal(states, wanted.last_hidden_state)
    assert torch.equal(keys_values(cache)[0][0], keys_values(wanted.past_key_values)[0][0])


def test_soft_embeddings_equal_transformers_self_conditioning_logits(random_model):
    _, cache = prefilled(random_model)
    canvas = torch.randint(24, (2, 8), generator=torch.Generator().manual_seed(2))
    logits = torch.randn(2, 8, 24, generator=torch.Generator().manual_seed(3))
    wanted = random_model.backbone(
        decoder_input_ids=canvas, past_key_values=cache, self_conditioning_logits=logits
    ).logits
    soft = logits.softmax(-1) @ random_model.head_weight * random_model.embed_scale
    ours = 30 * torch.tanh(random_model.decode(canvas, soft, cache) @ random_model.head_weight.T / 30)
    assert torch.allclose(ours, wanted, atol=1e-5)


def test_zero_soft_embeddings_are_the_first_step_and_decoding_hears_the_audio_and_leaves_the_cache(random_model):
    _, cache = prefilled(random_model)
    before = [keys.clone() for keys, _ in keys_values(cache)]
    canvas = torch.zeros(2, 8, dtype=torch.long)
    states = random_model.decode(canvas, None, cache)
    assert torch.equal(random_model.decode(canvas, torch.zeros(2, 8, 128), cache), states)
    assert not torch.allclose(states[0], states[1], atol=1e-3)
    assert all(torch.equal(old, new) for old, (new, _) in zip(before, keys_values(cache), strict=True))


def test_cropping_a_longer_prefill_gives_the_prompts_own_cache(random_model):
    frames = random_model.encode_audio(torch.randn(1, 80, 800))
    embeddings = random_model.prompt_embeddings(prompt(random_model), random_model.projector(frames))
    target = random_model.backbone.model.encoder.get_input_embeddings()(torch.tensor([[9, 10, 11]]))
    _, longer = random_model.prefill(torch.cat([embeddings, target], dim=1))
    longer.crop(-3)
    _, plain = random_model.prefill(embeddings)
    for (keys, values), (other_keys, other_values) in zip(keys_values(longer), keys_values(plain), strict=True):
        assert torch.allclose(keys, other_keys, atol=1e-5)
        assert torch.allclose(values, other_values, atol=1e-5)


def test_audio_is_numbered_by_the_pieces_heard_before_it(random_model, monkeypatch):
    """By the greedy path of CTC, read one token after the other."""
    distance, ids = 60, prompt(random_model)
    monkeypatch.setattr(random_model, "config", replace(random_model.config, audio_distance=distance))
    said = torch.randint(9, 24, (3, 50), generator=torch.Generator().manual_seed(4))
    blank = random_model.config.blank_id
    said[torch.rand(said.shape, generator=torch.Generator().manual_seed(5)) < 0.6] = blank
    said[1] = blank
    audio = 100 * random_model.head_weight[said]  # so far out that the head reads what was put in
    positions = random_model.prompt_positions(ids, audio)
    for row, path in zip(positions.tolist(), said.tolist(), strict=True):
        pieces, before = 0, blank
        for place, label in zip(row[2:52], path, strict=True):
            pieces += label not in (blank, before)
            before = label
            assert place == len(ids) - distance + max(pieces - 1, 0)
        assert [row[0], row[1], row[52]] == [0, 1, 52]


def test_without_a_distance_tokens_are_numbered_one_after_another(random_model):
    ids, audio = prompt(random_model), torch.randn(2, 50, 128)
    embeddings = random_model.prompt_embeddings(ids, audio)
    positions = random_model.prompt_positions(ids, audio)
    assert torch.equal(random_model.prefill(embeddings, positions=positions)[0], random_model.prefill(embeddings)[0])


def test_text_behind_numbered_audio_is_the_same_in_one_run_and_in_two(random_model, monkeypatch):
    """Training reads prompt and text at once, decoding goes on from the prompt's cache."""
    monkeypatch.setattr(random_model, "config", replace(random_model.config, audio_distance=60))
    ids, audio = prompt(random_model), random_model.head_weight[torch.randint(9, 24, (2, 50))] * 100
    embeddings, positions = random_model.prompt_embeddings(ids, audio), random_model.prompt_positions(ids, audio)
    text = random_model.backbone.model.encoder.get_input_embeddings()(torch.tensor([[9, 10, 11], [12, 13, 14]]))
    behind = torch.arange(len(ids), len(ids) + 3).expand(2, -1)
    together = random_model.prefill(
        torch.cat([embeddings, text], dim=1), positions=torch.cat([positions, behind], dim=1)
    )[0]
    _, cache = random_model.prefill(embeddings, positions=positions)
    assert torch.allclose(random_model.prefill(text, cache)[0], together[:, len(ids) :], atol=1e-4)
    other = random_model.prefill(torch.cat([embeddings, text], dim=1))[0]
    assert not torch.allclose(other, together, atol=1e-2)


@pytest.fixture(scope="module")
def prompts(random_model):
    """Transformers' cache of three prompts, and each of them alone."""
    _, cache = random_model.prefill(torch.randn(3, 7, 128))
    return cache, [[(keys[row], values[row]) for keys, values in keys_values(cache)] for row in range(3)]


@pytest.mark.parametrize("canvas_tokens", [8, 32])
def test_a_step_is_the_one_that_transformers_cache_gives(random_model, prompts, canvas_tokens):
    plain, alone = prompts
    cache = CanvasCache(alone[0], 3, 32)
    cache.put(torch.arange(3), alone)
    canvas, soft = torch.randint(0, 24, (3, canvas_tokens)), torch.randn(3, canvas_tokens, 128)
    wanted = random_model.decode(canvas, soft, plain)
    assert torch.equal(random_model.decode(canvas, soft, cache), wanted)
    assert torch.equal(random_model.decode(canvas, soft, cache), wanted)


def test_a_row_that_changes_its_prompt_forgets_the_one_before(random_model, prompts):
    plain, alone = prompts
    cache = CanvasCache(alone[0], 3, 8)
    cache.put(torch.arange(3), [alone[2], alone[2], alone[0]])
    random_model.decode(torch.zeros(3, 8, dtype=torch.int64), None, cache)
    cache.put(torch.tensor([2, 0]), [alone[2], alone[0]])
    cache.put(torch.tensor([1]), [alone[1]])
    canvas = torch.arange(8).expand(3, 8)
    assert torch.equal(random_model.decode(canvas, None, cache), random_model.decode(canvas, None, plain))
