"""The bundled model's size with random weights and its vocabulary, and segments of noise for it to hear words in."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dgasr.diffusion import DecodeConfig
from dgasr.features import segment_features
from dgasr.model.asr import AsrModel
from dgasr.model.presets import ModelIdentity, tiny
from dgasr.prompt import Tokenizer
from dgasr.recipe import build_recipe
from dgasr.records import Segment
from tools.tiny.fresh import initialise, write_word_tokenizer


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabulary")
    write_word_tokenizer(folder)
    torch.manual_seed(0)
    model = AsrModel(tiny(), Tokenizer.load(folder), ModelIdentity(name="random", digest="0" * 32))
    initialise(model, torch.randn(2, 80, 800), seed=0)
    # Tied embeddings make a random network repeat its last token; random signs before the head make it choose others.
    torch.nn.init.normal_(model.backbone.model.encoder.language_model.norm.weight, std=1.5)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def recipe(model):
    """With limits that let rows of the random network leave after differing numbers of steps."""
    decode = DecodeConfig(max_steps=6, confidence_threshold=1.4, entropy_bound=20.0, stability_threshold=0)
    return replace(build_recipe(model.config, model.identity), decode=decode)


@pytest.fixture(scope="session")
def segments(recipe):
    """Ten segments of three recordings, of 0.5 to 8 s, which do not begin at their recording's start."""
    generator = np.random.default_rng(0)
    features = []
    for index in range(10):
        num_samples = int(generator.integers(8_000, 128_000))
        segment = Segment(
            recording_id=f"{index % 3:032x}", segment_index=index, channel=0, start_sample=16_000 * index,
            end_sample=16_000 * index + num_samples, kind="speech", cut="end",
        )  # fmt: skip
        loudness = 0.1 + 0.1 * np.sin(np.arange(num_samples) / 2_000)
        waveform = (generator.standard_normal(num_samples) * loudness).astype(np.float32)
        features.append(segment_features(segment, waveform, recipe.features))
    return features
