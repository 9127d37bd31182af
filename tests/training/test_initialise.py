import pytest
import torch

from dgasr.model.asr import AsrModel
from dgasr.model.presets import tiny
from dgasr.training.start import POSITION_SCALE, initialise


@pytest.fixture(scope="module")
def log_mel():
    """Features with a level and a spread unlike a unit normal."""
    return torch.randn(3, 80, 800, generator=torch.Generator().manual_seed(2)) * 0.4 - 0.8


def make_model(log_mel, *, torch_seed=0, seed=0):
    torch.manual_seed(torch_seed)
    model = AsrModel(tiny()).eval()
    initialise(model, log_mel, seed)
    return model


@pytest.fixture(scope="module")
def model(log_mel):
    return make_model(log_mel)


def test_the_seed_alone_decides_every_weight(model, log_mel):
    other = make_model(log_mel, torch_seed=9)
    for (name, one), two in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two), name


def test_another_seed_gives_other_weights(model, log_mel):
    assert not torch.equal(model.head_weight, make_model(log_mel, seed=1).head_weight)


@torch.no_grad()
def test_audio_embeddings_of_the_batch_have_mean_zero_and_deviation_one(model, log_mel):
    embeddings = model.projector(model.encode_audio(log_mel)).flatten(0, 1)
    assert embeddings.mean(dim=0).abs().max() < 1e-3
    assert (embeddings.std(dim=0) - 1).abs().max() < 1e-2


def test_positions_do_not_drown_the_convolutions(model):
    assert model.encoder.embed_positions.weight.abs().max().item() == pytest.approx(POSITION_SCALE)


def test_embeddings_have_the_length_of_the_soft_capped_heads_inputs(model):
    lengths = model.head_weight.norm(dim=1)
    assert lengths.mean().item() == pytest.approx(1, abs=0.1)
    assert lengths[0] > 0.5  # the pad's, which transformers leaves at zero


def test_no_hook_stays_behind(model, log_mel):
    assert not any(module._forward_hooks for module in (model.encoder.conv1, model.projector.output))
