import pytest
import torch

from dgasr.errors import ConfigError
from dgasr.model.adapter import add_lora
from dgasr.model.asr import AsrModel
from dgasr.model.presets import AsrConfig, CanvasConfig, full, tiny


@pytest.fixture(scope="module")
def full_on_meta():
    with torch.device("meta"):
        model = AsrModel(full())
        add_lora(model, model.config.lora)
    return model


def count(parameters):
    return sum(parameter.numel() for parameter in parameters)


def test_the_full_model_has_the_published_and_derived_sizes(full_on_meta):
    named = dict(full_on_meta.backbone.named_parameters())
    assert count(parameter for name, parameter in named.items() if "lora_" not in name) == 25_250_986_752
    assert count(parameter for name, parameter in named.items() if "lora_" in name) == 22_978_560
    assert count(full_on_meta.projector.parameters()) == 19_472_896
    config = full()
    assert (config.window_samples, config.num_audio_tokens, config.frame_samples) == (480_000, 188, 320)


def test_tiny_model_has_the_full_models_architecture_in_small():
    config = tiny()
    assert {"sliding_attention", "full_attention"} == set(config.backbone["layer_types"])
    assert config.backbone.keys() >= full().backbone.keys() - {"layer_types"}


@pytest.mark.parametrize("preset", [tiny, full])
def test_a_config_survives_its_file(preset, tmp_path):
    preset().save(tmp_path / "config.json")
    assert AsrConfig.load(tmp_path / "config.json") == preset()


def test_a_config_with_an_unknown_field_is_refused_with_its_path(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"name": "x", "beam_size": 5}')
    with pytest.raises(ConfigError, match=r"config\.json"):
        AsrConfig.load(path)


def test_bucket_is_the_smallest_that_holds_the_estimate():
    canvas = CanvasConfig(buckets=(8, 16, 32), tokens_per_second=4.0, margin_tokens=2)
    assert [canvas.bucket_for(duration_s) for duration_s in (0.1, 1.5, 1.6, 3.5, 100.0)] == [8, 8, 16, 16, 32]
    with pytest.raises(ConfigError, match="ascending"):
        CanvasConfig(buckets=(16, 8), tokens_per_second=1.0, margin_tokens=0)
