"""A canvas depends on its job alone, shown on DiffusionGemma's own decoder with random weights, on one CPU thread.

Experts that see one to three tokens use another summation order in torch's matrix product than experts that see more,
so the bits can only hold where every expert's shape is fixed (`batched_mm`); otherwise the tokens do.
"""

import random

import numpy as np
import pytest
import torch

from dgasr.diffusion.canvas import CanvasJob
from dgasr.diffusion.decode_config import DecodeConfig
from dgasr.diffusion.denoise import denoise
from dgasr.diffusion.noise import segment_key

CONFIG = DecodeConfig(max_steps=10, confidence_threshold=0.35, entropy_bound=4.0)
"""With these, rows of the random network leave after anything from three to ten steps."""

NUM_JOBS = 32
CANVAS = 8


@pytest.fixture(scope="module")
def run(build_backbone, prompts, text_decoder):
    backbones = {name: build_backbone(name) for name in ("batched_mm", "grouped_mm")}

    def run_jobs(experts_implementation, indices, num_rows):
        decoder = text_decoder(backbones[experts_implementation], num_rows)
        index_of = {segment_key("recording", index): index for index in indices}
        jobs = [
            CanvasJob(noise_key=key, canvas_tokens=CANVAS, payload=prompts[index]) for key, index in index_of.items()
        ]
        canvases = denoise(
            decoder, decoder.head, jobs, num_rows=num_rows, buckets=(CANVAS,), end_token_ids=(1,), config=CONFIG
        )
        return {index_of[canvas.job.noise_key]: canvas for canvas in canvases}

    return run_jobs


@pytest.fixture(scope="module")
def all_jobs(run):
    torch.set_num_threads(1)
    return {name: run(name, range(NUM_JOBS), 8) for name in ("batched_mm", "grouped_mm")}


OTHER_COMPANY = {
    "alone": [5],
    "of three": [4, 5, 30],
    "shuffled": random.Random(0).sample(range(NUM_JOBS), NUM_JOBS),
}


def same_tokens(canvas, other):
    return np.array_equal(canvas.ids, other.ids) and canvas.num_steps == other.num_steps


def same_bits(canvas, other):
    return same_tokens(canvas, other) and np.array_equal(canvas.log_probabilities, other.log_probabilities)


def test_rows_leave_at_many_different_steps(all_jobs):
    assert len({canvas.num_steps for canvas in all_jobs["batched_mm"].values()}) > 4


@pytest.mark.parametrize("company", OTHER_COMPANY)
def test_bits_do_not_depend_on_the_other_rows(run, all_jobs, company):
    for index, canvas in run("batched_mm", OTHER_COMPANY[company], 8).items():
        assert same_bits(canvas, all_jobs["batched_mm"][index])


@pytest.mark.parametrize("num_rows", [1, 3, 32])
def test_tokens_do_not_depend_on_the_batch_size(run, all_jobs, num_rows):
    for index, canvas in run("batched_mm", range(NUM_JOBS), num_rows).items():
        assert same_tokens(canvas, all_jobs["batched_mm"][index])


@pytest.mark.parametrize("company", OTHER_COMPANY)
def test_tokens_do_not_depend_on_the_other_rows_with_grouped_experts(run, all_jobs, company):
    for index, canvas in run("grouped_mm", OTHER_COMPANY[company], 8).items():
        assert same_tokens(canvas, all_jobs["grouped_mm"][index])
