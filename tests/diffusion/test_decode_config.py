import pytest

from dgasr.diffusion.decode_config import DecodeConfig
from dgasr.errors import ConfigError


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_steps": 0},
        {"entropy_bound": 0.0},
        {"confidence_threshold": -0.1},
        {"stability_threshold": -1},
        {"t_max": 0.0, "t_min": 0.0},
        {"t_min": 0.9},
        {"t_min": -0.1},
        {"vocabulary_chunk": 0},
    ],
)
def test_a_wrong_value_is_refused_by_name(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DecodeConfig(**wrong)


def test_an_unknown_field_is_refused_where_pydantic_validates():
    from pydantic import TypeAdapter, ValidationError

    with pytest.raises(ValidationError, match=r"max_step\b"):
        TypeAdapter(DecodeConfig).validate_python({"max_step": 4})


def test_the_defaults_are_the_models_generation_config():
    config = DecodeConfig()
    assert (config.t_max, config.t_min, config.entropy_bound) == (0.8, 0.4, 0.1)
    assert (config.confidence_threshold, config.stability_threshold) == (0.005, 1)
