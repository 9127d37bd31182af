import pytest
import torch
from transformers.models.diffusion_gemma.generation_diffusion_gemma import (
    EntropyBoundSampler,
    EntropyBoundSamplerConfig,
    LinearTemperatureScheduleLogitsProcessor,
    StableAndConfidentStoppingCriteria,
)

from dgasr.diffusion import DecodeConfig
from dgasr.diffusion.sampler import accept_positions, is_settled, temperature_at


def test_the_first_step_is_the_hottest_and_the_last_stays_above_t_min():
    config = DecodeConfig(max_steps=4, t_max=0.8, t_min=0.4)
    assert temperature_at(torch.arange(4), config).tolist() == pytest.approx([0.8, 0.7, 0.6, 0.5])


def test_temperature_equals_transformers():
    config = DecodeConfig(max_steps=7)
    processor = LinearTemperatureScheduleLogitsProcessor(config.t_min, config.t_max, config.max_steps)
    for step in range(7):
        theirs = 1 / processor(None, torch.tensor(1.0), cur_step=torch.tensor(7 - step, dtype=torch.int32))
        assert float(temperature_at(torch.tensor([step]), config)) == pytest.approx(float(theirs), rel=1e-6)


@pytest.mark.parametrize(
    ("entropy", "accepted"),
    [
        ([0.5, 0.01, 0.06, 0.05], [False, True, True, True]), ([0.08, 0.3, 0.4], [True, True, False]),
        ([4.0, 4.0, 4.0], [True, False, False]), ([0.2, 0.2, 0.2], [True, False, False]),
    ],
    ids=["surest first", "the one that crosses the bound too", "at least one", "of equals the earlier"],
)  # fmt: skip
def test_positions_are_accepted_up_to_the_bound(entropy, accepted):
    assert accept_positions(torch.tensor([entropy]), 0.1).tolist() == [accepted]


@pytest.mark.parametrize("scale", [0.5, 5.0, 20.0])
def test_acceptance_equals_transformers(scale):
    logits = torch.randn(8, 32, 50, generator=torch.Generator().manual_seed(1)) * scale
    theirs = EntropyBoundSampler(EntropyBoundSamplerConfig(entropy_bound=0.1), 32, 50, 8)
    canvas = torch.zeros(8, 32, dtype=torch.long)
    theirs.accept_canvas(canvas, canvas, logits, 8)
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    assert torch.equal(accept_positions(entropy, 0.1), theirs.accepted_token_mask)


@pytest.mark.parametrize("stability", [0, 1, 2])
def test_settling_equals_transformers(stability):
    config = DecodeConfig(stability_threshold=stability, confidence_threshold=0.3)
    theirs = StableAndConfidentStoppingCriteria(stability, 0.3)
    generator = torch.Generator().manual_seed(2)
    history = torch.full((6, stability, 4), -1)
    seen = set()
    for step in range(12):
        scale = torch.rand(6, 1, 1, generator=generator) * 30
        logits = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(step // 3)) * scale
        argmax = logits.argmax(-1)
        entropy = torch.distributions.Categorical(logits=logits).entropy()
        settled = is_settled(argmax, history, entropy, config)
        history = torch.cat([history, argmax[:, None]], dim=1)[:, 1:]
        assert torch.equal(settled, theirs(argmax, logits))
        seen.update(settled.tolist())
    assert seen == {True, False}


def test_nothing_settles_at_its_first_step_or_under_a_threshold_of_zero():
    ids = torch.zeros(1, 3, dtype=torch.long)
    assert not is_settled(ids, torch.full((1, 1, 3), -1), torch.zeros(1, 3), DecodeConfig()).item()
    config = DecodeConfig(confidence_threshold=0.0)
    assert not is_settled(ids, ids[:, None], torch.zeros(1, 3), config).item()
