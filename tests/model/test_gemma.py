"""A Gemma 3 with random weights, and the same one as a DiffusionGemma."""

from dataclasses import replace

import pytest
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from dgasr.errors import ConfigError
from dgasr.model.asr import AsrModel
from dgasr.model.checkpoint import load_weights, save_model
from dgasr.model.presets import AsrConfig, CanvasConfig, ProjectorConfig
from dgasr.prompt import PromptConfig
from tools.gemma import gemma3_backbone_fields, load_gemma3

ROWS = [5, 7, 1, 90, 33, 12, 60, 61, 62, 63, 64, 65]


@pytest.fixture(scope="module")
def gemma():
    config = Gemma3TextConfig(
        vocab_size=128, hidden_size=64, intermediate_size=96, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=1, head_dim=16, query_pre_attn_scalar=16, sliding_window=8, tie_word_embeddings=True,
        layer_types=["sliding_attention"] * 5 + ["full_attention"], bos_token_id=2, eos_token_id=1, pad_token_id=0,
        max_position_embeddings=512,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Gemma3ForCausalLM(config).eval().requires_grad_(False)
    for parameter in model.parameters():  # norms that differ from one, and values of ordinary size
        scale = 0.3 if parameter.dim() == 1 else parameter.shape[-1] ** -0.5
        parameter.copy_(torch.randn_like(parameter) * scale)
    return model


@pytest.fixture(scope="module")
def config(gemma):
    return AsrConfig(
        name="miniature",
        encoder={
            "num_mel_bins": 80, "d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2,
            "encoder_ffn_dim": 16, "max_source_positions": 64,
        },
        backbone=gemma3_backbone_fields(gemma.config, len(ROWS))
        | {"pad_token_id": 0, "eos_token_id": [1], "bos_token_id": 2},
        backbone_family="gemma3",
        projector=ProjectorConfig(channels=(8, 8), blocks=2, norms=("output=rms",)),
        prompt=PromptConfig(
            template="<bos>{audio}", begin_audio_id=6, audio_id=5, end_audio_id=7, end_text_ids=(1,), pad_id=0
        ),
        canvas=CanvasConfig(buckets=(8, 16), tokens_per_second=6.0, margin_tokens=2),
        blank_id=4,
        languages=("en",),
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(gemma, config):
    torch.manual_seed(0)
    model = AsrModel(config).eval().requires_grad_(False)
    load_gemma3(model.backbone, gemma, ROWS)
    return model


def test_causal_encoder_computes_what_gemma_3_computes(model, gemma):
    ids = torch.randint(0, len(ROWS), (2, 20), generator=torch.Generator().manual_seed(1))
    embeddings = model.backbone.model.encoder.get_input_embeddings()(ids)
    states, _ = model.prefill(embeddings)
    expected = gemma.model(input_ids=torch.tensor(ROWS)[ids]).last_hidden_state
    assert torch.allclose(states, expected, atol=1e-5 * float(expected.abs().max()))
    assert torch.equal(model.head_weight, gemma.lm_head.weight[torch.tensor(ROWS)])


def test_decoder_shares_every_matrix_with_the_encoder(model):
    encoder, decoder = model.backbone.model.encoder.language_model.layers, model.backbone.model.decoder.layers
    for own, theirs in zip(encoder, decoder, strict=True):
        names = dict(theirs.named_parameters())
        assert names.keys() == dict(own.named_parameters()).keys()
        assert all(parameter is names[name] for name, parameter in own.named_parameters())


def test_decoder_sees_the_whole_canvas_and_starts_without_self_conditioning(model):
    _, cache = model.prefill(torch.randn(1, 5, 64, generator=torch.Generator().manual_seed(2)))
    canvas = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8]])
    states = model.decode(canvas, None, cache)
    changed = canvas.clone()
    changed[0, -1] = 9
    assert not torch.allclose(model.decode(changed, None, cache)[0, 0], states[0, 0])  # looks ahead
    signal = torch.randn(1, 8, 64, generator=torch.Generator().manual_seed(3))
    assert torch.equal(model.decode(canvas, signal, cache), states)


def test_weights_survive_a_model_folder(model, config, tmp_path):
    save_model(model, tmp_path)
    other = AsrModel(AsrConfig.load(tmp_path / "config.json")).eval()
    load_weights(other, tmp_path)
    embeddings = torch.randn(1, 6, 64, generator=torch.Generator().manual_seed(4))
    assert torch.equal(other.prefill(embeddings)[0], model.prefill(embeddings)[0])


def test_unknown_family_is_refused(config):
    with pytest.raises(ConfigError, match="backbone_family 'gemma4'"):
        replace(config, backbone_family="gemma4")
