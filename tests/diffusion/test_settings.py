import pytest

from dgasr.diffusion import DecodeConfig
from dgasr.errors import ConfigError


def test_a_canvas_without_steps_is_refused():
    with pytest.raises(ConfigError, match="max_steps is 0"):
        DecodeConfig(max_steps=0)


def test_an_unknown_field_is_refused_where_pydantic_validates():
    from pydantic import TypeAdapter, ValidationError

    with pytest.raises(ValidationError, match=r"max_step\b"):
        TypeAdapter(DecodeConfig).validate_python({"max_step": 4})


def test_the_defaults_are_the_models_generation_config():
    config = DecodeConfig()
    assert (config.t_max, config.t_min, config.entropy_bound) == (0.8, 0.4, 0.1)
    assert (config.confidence_threshold, config.stability_threshold) == (0.005, 1)
