"""With noise and settings matched, `denoise` takes the steps that transformers' own `generate` takes.

Tolerated difference: 1e-4 in logits (fp32); canvases are equal token by token.
"""

import pytest
import torch
from transformers import DiffusionGemmaGenerationConfig
from transformers.models.diffusion_gemma.generation_diffusion_gemma import EntropyBoundSamplerConfig

from benchmarks.parity import TheirDraws
from dgasr.diffusion.canvas import CanvasJob
from dgasr.diffusion.decode_config import DecodeConfig
from dgasr.diffusion.denoise import denoise
from dgasr.diffusion.noise import segment_key

LOGIT_TOLERANCE = 1e-4
CANVAS, VOCAB, ROWS = 16, 64, 4
KEYS = [segment_key("recording", index) for index in range(ROWS)]
END = 1

CASES = {
    "all steps": DecodeConfig(confidence_threshold=1e-9, entropy_bound=2.0),
    "few accepted": DecodeConfig(confidence_threshold=1e-9, entropy_bound=0.1),
    "some settle": DecodeConfig(max_steps=16, confidence_threshold=0.35, entropy_bound=4.0),
    "settle after two equal steps": DecodeConfig(
        max_steps=16, confidence_threshold=0.35, stability_threshold=2, entropy_bound=4.0
    ),
    "vocabulary in chunks": DecodeConfig(confidence_threshold=1e-9, entropy_bound=2.0, vocabulary_chunk=24),
}


def generate(backbone, prompts, config, draws, monkeypatch):
    """Run transformers' `generate` for one canvas.

    Returns:
        The final canvases, and canvas, logits, self-conditioning logits of every step.
    """
    steps = []
    forward = backbone.forward

    def noting_forward(**kwargs):
        output = forward(**kwargs)
        steps.append((kwargs["decoder_input_ids"].clone(), output.logits))
        return output

    with monkeypatch.context() as patch:
        patch.setattr(torch, "randint", draws.randint)
        patch.setattr(torch, "multinomial", draws.multinomial)
        patch.setattr(backbone, "forward", noting_forward)
        output = backbone.generate(
            prompts,
            generation_config=DiffusionGemmaGenerationConfig(
                max_new_tokens=CANVAS, max_denoising_steps=config.max_steps, t_min=config.t_min, t_max=config.t_max,
                sampler_config=EntropyBoundSamplerConfig(entropy_bound=config.entropy_bound),
                stability_threshold=config.stability_threshold, confidence_threshold=config.confidence_threshold,
            ),
        )  # fmt: skip
    return output.sequences[:, prompts.shape[1] :], steps


@pytest.fixture(params=CASES)
def case(request, backbone, prompts, text_decoder, monkeypatch):
    config = CASES[request.param]
    their_canvases, their_steps = generate(
        backbone, prompts[:ROWS], config, TheirDraws(KEYS, CANVAS, VOCAB, config), monkeypatch
    )
    decoder = text_decoder(backbone, ROWS)
    jobs = [CanvasJob(noise_key=KEYS[row], canvas_tokens=CANVAS, payload=row) for row in range(ROWS)]
    decoder_admit = decoder.admit
    decoder.admit = lambda rows, payloads: decoder_admit(rows, [prompts[row] for row in payloads])
    canvases = list(
        denoise(decoder, decoder.head, jobs, num_rows=ROWS, buckets=(CANVAS,), end_token_ids=(END,), config=config)
    )
    return config, their_canvases, their_steps, {canvas.job.payload: canvas for canvas in canvases}, decoder


def test_final_canvases_are_equal(case):
    _, theirs, _, ours, _ = case
    assert [ours[row].ids.tolist() for row in range(ROWS)] == theirs.tolist()


def test_canvases_are_equal_step_by_step_until_a_row_leaves(case):
    _, _, their_steps, ours, decoder = case
    for row in range(ROWS):
        for step in range(ours[row].num_steps):
            assert decoder.canvases[step][row].tolist() == their_steps[step][0][row].tolist()


def test_logits_are_equal_within_tolerance(case):
    config, _, their_steps, ours, _ = case
    for row, canvas in ours.items():
        logits = their_steps[canvas.num_steps - 1][1][row]
        expected = logits.log_softmax(-1).amax(-1)
        assert abs(canvas.log_probabilities - expected.numpy()).max() < LOGIT_TOLERANCE
        temperature = config.t_min + (config.t_max - config.t_min) * (1 - (canvas.num_steps - 1) / config.max_steps)
        expected = torch.distributions.Categorical(logits=logits / temperature).entropy()
        assert abs(canvas.entropy - expected.numpy()).max() < LOGIT_TOLERANCE


def test_the_cases_show_what_they_are_meant_to_show(backbone, prompts, monkeypatch, text_decoder):
    kept = set()
    for name in ("all steps", "some settle"):
        config = CASES[name]
        _, steps = generate(backbone, prompts[:ROWS], config, TheirDraws(KEYS, CANVAS, VOCAB, config), monkeypatch)
        draws = TheirDraws(KEYS, CANVAS, VOCAB, config)
        for step in range(1, len(steps)):
            kept.update((steps[step][0] != draws.noise(step - 1).renoise_ids(CANVAS, VOCAB)).sum(1).tolist())
    assert len(kept) > 4  # from few accepted positions to many


def test_rows_settle_early_and_at_different_steps(backbone, prompts, text_decoder):
    config = CASES["some settle"]
    decoder = text_decoder(backbone, ROWS)
    jobs = [CanvasJob(noise_key=KEYS[row], canvas_tokens=CANVAS, payload=prompts[row]) for row in range(ROWS)]
    canvases = list(
        denoise(decoder, decoder.head, jobs, num_rows=ROWS, buckets=(CANVAS,), end_token_ids=(END,), config=config)
    )
    num_steps = {canvas.num_steps for canvas in canvases if canvas.is_settled}
    assert len(num_steps) > 1


def test_soft_embeddings_replace_self_conditioning_logits(backbone, prompts, text_decoder):
    decoder = text_decoder(backbone, ROWS)
    decoder.admit(range(ROWS), prompts[:ROWS])
    ids = prompts[:ROWS].repeat(1, 3)[:, :CANVAS]
    logits = torch.randn(ROWS, CANVAS, VOCAB, generator=torch.Generator().manual_seed(4)) * 4
    theirs = backbone.model.decoder(
        decoder_input_ids=ids, self_conditioning_logits=logits, past_key_values=decoder.cache
    ).last_hidden_state
    soft_embeddings = logits.softmax(-1) @ decoder.head.weight * decoder.head.embed_scale
    torch.testing.assert_close(decoder(ids, soft_embeddings), theirs, atol=LOGIT_TOLERANCE, rtol=0)


def test_zero_soft_embeddings_are_no_self_conditioning(backbone, prompts, text_decoder):
    decoder = text_decoder(backbone, ROWS)
    decoder.admit(range(ROWS), prompts[:ROWS])
    ids = prompts[:ROWS].repeat(1, 3)[:, :CANVAS]
    theirs = backbone.model.decoder(decoder_input_ids=ids, past_key_values=decoder.cache).last_hidden_state
    assert torch.equal(decoder(ids, torch.zeros(ROWS, CANVAS, decoder.head.weight.shape[1])), theirs)
