import pytest
import torch

from dgasr.diffusion.vocabulary import CanvasStatistics
from dgasr.errors import ConfigError
from dgasr.training import canvas_noise
from dgasr.training.canvas_noise import CanvasNoiseConfig, noised_canvas

CLEAN = torch.tensor([[9, 10, 11, 8, 0, 0, 0, 0]]).repeat(200, 1)


@pytest.fixture(scope="module")
def cache(random_model):
    rows = random_model.prompt_embeddings(torch.tensor([2, 9, 10]), torch.zeros(200, 0, 128))
    return random_model.prefill(rows)[1]


@pytest.fixture
def noised(random_model, cache):
    def make(seed=0, **shares):
        generator = torch.Generator().manual_seed(seed)
        return noised_canvas(random_model, CLEAN, cache, CanvasNoiseConfig(**shares), generator)

    return make


def kept(ids):
    return (ids == CLEAN).float().mean(dim=1)


def test_tokens_are_replaced_at_a_rate_of_each_rows_own_or_all_of_them(noised):
    ids, _ = noised(full_noise=1.0)
    assert kept(ids).mean().item() == pytest.approx(1 / 24, abs=0.02)
    assert set(ids.flatten().tolist()) == set(range(24))
    shares = kept(noised(full_noise=0.0)[0])
    assert shares.mean().item() == pytest.approx(0.5, abs=0.07)
    assert shares.std() > 0.2
    assert (shares == 1).any()
    assert (kept(noised(full_noise=0.5)[0]) < 0.3).float().mean().item() == pytest.approx(0.5 + 0.5 * 0.3, abs=0.12)


def test_half_of_the_rows_see_a_first_look_and_the_others_zeros(noised):
    _, soft = noised(self_conditioning=0.5)
    has_signal = soft.flatten(1).any(dim=1)
    assert soft.shape == (200, 8, 128)
    assert has_signal.float().mean().item() == pytest.approx(0.5, abs=0.12)
    assert bool((soft[has_signal].norm(dim=-1) > 0).all())
    assert not noised(self_conditioning=0.0)[1].any()


def test_noise_is_a_function_of_its_generator_and_carries_no_gradient(noised):
    shares = {"own_steps": 0.5, "max_own_steps": 2}
    one, other, different = noised(3, **shares), noised(3, **shares), noised(4, **shares)
    assert all(torch.equal(left, right) for left, right in zip(one, other, strict=True))
    assert not torch.equal(one[0], different[0])
    assert not any(tensor.requires_grad for tensor in one)


def test_own_steps_put_the_decoders_own_tokens_on_the_canvas(noised, monkeypatch):
    monkeypatch.setattr(canvas_noise, "_look", lambda *_: sure_of(12))
    ids, soft = noised(own_steps=0.5, self_conditioning=0.0)
    own = (ids == 12).all(dim=1)
    assert own.float().mean().item() == pytest.approx(0.5, abs=0.12)
    assert bool((soft[own] == 7).all())
    assert not soft[~own].any()


def test_positions_that_the_decoder_doubts_are_noised_again(noised, monkeypatch):
    monkeypatch.setattr(canvas_noise, "_look", lambda *_: sure_of(12, up_to=4))
    ids, _ = noised(own_steps=1.0)
    assert bool((ids[:, :4] == 12).all())
    assert (ids[:, 5:] == 12).float().mean().item() == pytest.approx(1 / 24, abs=0.03)


def test_the_number_of_own_steps_is_drawn_from_one_to_the_most(noised, monkeypatch):
    looks, counts = [], set()
    monkeypatch.setattr(canvas_noise, "_look", lambda *_: looks.append(1) or sure_of(12))
    for seed in range(20):
        noised(seed, own_steps=0.5, max_own_steps=3)
        counts.add(len(looks))
        looks.clear()
    assert counts == {1, 2, 3}


@pytest.mark.parametrize("wrong", [{"full_noise": -0.1}, {"own_steps": 1.1}, {"max_own_steps": 0}, {"draws": 0}])
def test_shares_and_counts_without_meaning_are_refused(wrong):
    with pytest.raises(ConfigError, match="canvas noise"):
        CanvasNoiseConfig(**wrong)


def sure_of(token, up_to=8):
    """What a decoder would say that is sure of one token in the first positions, and of nothing after them."""
    doubts = torch.where(torch.arange(8) < up_to, 0.0, 3.0).repeat(200, 1)
    ids = torch.full((200, 8), token)
    return CanvasStatistics(
        argmax_ids=ids, argmax_log_probability=-doubts, entropy=doubts, sampled_ids=ids,
        soft_embeddings=torch.full((200, 8, 128), 7.0),
    )  # fmt: skip
