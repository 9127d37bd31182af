"""Every loss against the plain formula: whole vocabulary, one row at a time, no shared cache."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from dgasr.diffusion.vocabulary import CanvasStatistics
from dgasr.errors import ConfigError
from dgasr.model.presets import tiny
from dgasr.prompt import build_prompt
from dgasr.training import objective
from dgasr.training.augmentation import AugmentationConfig
from dgasr.training.batches import IGNORED, BatchConfig, Batches
from dgasr.training.objective import CanvasNoiseConfig, LossWeights, batch_losses, noised_canvas

ALL = LossWeights(diffusion=1.0, autoregressive=0.5, ctc=2.0, frame=0.25, pad=0.2)
NOISE = CanvasNoiseConfig(own_steps=0.5, max_own_steps=2)


@pytest.fixture(scope="module")
def batch(tones, tokenizer):
    """Three rows: two of speech of different lengths, one without."""
    config = BatchConfig(batch_size=5, non_speech_probability=0.2, word_share=1.0)
    whole = Batches(tones, tiny(), tokenizer, config, AugmentationConfig(), (0.2, 0.2), 1, 0)[0]
    lengths = whole.text_lengths.tolist()
    rows = torch.tensor([lengths.index(max(lengths)), lengths.index(2), lengths.index(0)])
    return replace(
        whole, log_mel=whole.log_mel[rows], canvas=whole.canvas[rows, :16], text_lengths=whole.text_lengths[rows],
        frame_labels=whole.frame_labels[rows],
    )  # fmt: skip


@pytest.fixture(scope="module")
def prompt_ids(tokenizer):
    return torch.tensor(build_prompt(tokenizer, tiny().prompt, tiny().num_audio_tokens, "en"))


@pytest.fixture
def losses_of(random_model, batch, prompt_ids):
    def compute(weights, *, batch=batch, noise=NOISE, model=random_model, seed=0):
        return batch_losses(model, batch, prompt_ids, weights, noise, torch.Generator().manual_seed(seed))

    return compute


@pytest.fixture(scope="module")
def audio(random_model, batch):
    return random_model.projector(random_model.encode_audio(batch.log_mel))


def log_probs(model, states, bias=0.0):
    logits = 30 * torch.tanh(states @ model.head_weight.T / 30)
    return (logits + bias * F.one_hot(torch.tensor(model.config.blank_id), 24)).log_softmax(-1)


def prefilled(model, prompt_ids, audio, row, text=()):
    """Run the encoder over one row's prompt and the beginning of its text."""
    embeddings = model.prompt_embeddings(prompt_ids, audio[row : row + 1])
    text = model.backbone.model.encoder.get_input_embeddings()(torch.tensor([list(text)], dtype=torch.long))
    return model.prefill(torch.cat([embeddings, text], dim=1))


def canvases(batch, num_draws):
    """A noised canvas and a soft embedding for every draw of every row, all different."""
    generator = torch.Generator().manual_seed(5)
    rows = len(batch.canvas) * num_draws
    ids = torch.randint(24, (rows, batch.canvas.shape[1]), generator=generator)
    return ids, torch.randn(*ids.shape, 128, generator=generator)


def test_ctc_and_frame_losses_are_means_over_rows_of_nats_per_token_and_over_labelled_frames(
    random_model, batch, losses_of, audio
):
    said, found = log_probs(random_model, audio, random_model.config.blank_bias), losses_of(ALL)
    frames = torch.full((3,), audio.shape[1])
    nll = F.ctc_loss(said.transpose(0, 1), batch.canvas[:, :-1], frames, batch.text_lengths, blank=4, reduction="none")
    torch.testing.assert_close(found["ctc"], (nll / batch.text_lengths.clamp(min=1)).mean(), rtol=1e-5, atol=1e-5)
    nll = F.nll_loss(said.flatten(0, 1), batch.frame_labels.flatten(), ignore_index=IGNORED)
    torch.testing.assert_close(found["frame"], nll, rtol=1e-5, atol=1e-5)
    unlabelled = replace(batch, frame_labels=torch.full_like(batch.frame_labels, IGNORED))
    assert losses_of(replace(ALL, frame=1.0), batch=unlabelled)["frame"] == 0


def test_the_autoregressive_loss_is_that_of_each_token_from_those_before_it(
    random_model, batch, prompt_ids, losses_of, audio
):
    nll = []
    for row, length in enumerate(batch.text_lengths.tolist()):
        for position in range(length + 1):
            states, _ = prefilled(random_model, prompt_ids, audio, row, batch.canvas[row, :position].tolist())
            nll.append(-log_probs(random_model, states[0, -1])[batch.canvas[row, position]])
    assert len(nll) == int(batch.text_lengths.sum()) + 3
    torch.testing.assert_close(losses_of(ALL)["autoregressive"], torch.stack(nll).mean(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_draws", [1, 3])
@pytest.mark.parametrize("autoregressive", [0.0, 0.5])
def test_the_diffusion_loss_is_that_of_each_canvas_after_its_own_prompt(
    random_model, batch, prompt_ids, losses_of, audio, monkeypatch, num_draws, autoregressive
):
    noised, soft = canvases(batch, num_draws)
    monkeypatch.setattr(objective, "noised_canvas", lambda *_: (noised, soft))
    nll, shares = [], []
    for row, length in enumerate(batch.text_lengths.tolist()):
        _, cache = prefilled(random_model, prompt_ids, audio, row)
        for draw in range(row * num_draws, (row + 1) * num_draws):
            states = random_model.decode(noised[draw : draw + 1], soft[draw : draw + 1], cache)[0]
            nll.append(F.nll_loss(log_probs(random_model, states), batch.canvas[row], reduction="none"))
            shares.append(torch.tensor([1.0] * (length + 1) + [0.2] * (16 - length - 1)))
    wanted = (torch.cat(nll) * torch.cat(shares)).sum() / torch.cat(shares).sum()
    weights = replace(ALL, autoregressive=autoregressive)
    ours = losses_of(weights, noise=replace(NOISE, draws=num_draws))["diffusion"]
    torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-5)


def test_noise_draws_see_the_clean_text_of_their_own_row(batch, losses_of, monkeypatch):
    seen = []

    def look(model, clean, *_):
        seen.append(clean)
        return clean, torch.zeros(*clean.shape, 128)

    monkeypatch.setattr(objective, "noised_canvas", look)
    losses_of(ALL, noise=replace(NOISE, draws=2))
    assert torch.equal(seen[0], batch.canvas[[0, 0, 1, 1, 2, 2]])


@pytest.mark.parametrize("name", ["diffusion", "autoregressive", "ctc", "frame"])
def test_the_total_is_the_weighted_sum_and_a_loss_of_weight_zero_changes_no_other(losses_of, name):
    losses, others = losses_of(replace(ALL, **{name: 0})), losses_of(ALL)
    assert name not in losses
    for other in losses.keys() - {"total"}:
        torch.testing.assert_close(losses[other], others[other], rtol=1e-5, atol=1e-5)
    wanted = others["diffusion"] + 0.5 * others["autoregressive"] + 2 * others["ctc"] + 0.25 * others["frame"]
    torch.testing.assert_close(others["total"], wanted)


def test_what_no_loss_needs_does_not_run(random_model, losses_of, monkeypatch):
    monkeypatch.setattr(random_model, "decode", lambda *_: pytest.fail("the decoder ran"))
    assert "autoregressive" in losses_of(replace(ALL, diffusion=0))
    monkeypatch.setattr(random_model, "prefill", lambda *_: pytest.fail("the backbone ran"))
    assert losses_of(replace(ALL, diffusion=0, autoregressive=0)).keys() == {"ctc", "frame", "total"}


def test_canvas_noise_comes_from_the_generator(losses_of):
    one, other, different = (losses_of(ALL, seed=seed)["diffusion"] for seed in (0, 0, 1))
    assert torch.equal(one, other)
    assert not torch.equal(one, different)


@pytest.mark.parametrize("name", ["ctc", "autoregressive", "diffusion"])
def test_every_loss_teaches_encoder_projector_and_backbone(random_model, losses_of, name):
    model = copy.deepcopy(random_model).requires_grad_(True)
    weights = replace(LossWeights(diffusion=0, autoregressive=0, ctc=0), **{name: 1.0})
    losses_of(weights, model=model)["total"].backward()
    taught = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert taught == {"encoder", "projector", "backbone"}


def test_negative_weights_are_refused():
    with pytest.raises(ConfigError, match="must not be negative"):
        LossWeights(ctc=-0.1)


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
    monkeypatch.setattr(objective, "_look", lambda *_: sure_of(12))
    ids, soft = noised(own_steps=0.5, self_conditioning=0.0)
    own = (ids == 12).all(dim=1)
    assert own.float().mean().item() == pytest.approx(0.5, abs=0.12)
    assert bool((soft[own] == 7).all())
    assert not soft[~own].any()


def test_positions_that_the_decoder_doubts_are_noised_again(noised, monkeypatch):
    monkeypatch.setattr(objective, "_look", lambda *_: sure_of(12, up_to=4))
    ids, _ = noised(own_steps=1.0)
    assert bool((ids[:, :4] == 12).all())
    assert (ids[:, 5:] == 12).float().mean().item() == pytest.approx(1 / 24, abs=0.03)


def test_the_number_of_own_steps_is_drawn_from_one_to_the_most(noised, monkeypatch):
    looks, counts = [], set()
    monkeypatch.setattr(objective, "_look", lambda *_: looks.append(1) or sure_of(12))
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
