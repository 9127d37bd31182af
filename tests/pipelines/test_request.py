import pytest
from pydantic import TypeAdapter, ValidationError

from dgasr.errors import ConfigError
from pipelines.request import PoolsConfig


@pytest.mark.parametrize(
    "name", ["max_attempts", "poll_s", "max_staged_bytes", "heartbeat_deadline_s", "prepare_processes"]
)
def test_a_number_with_which_nothing_would_run_is_refused(name: str):
    with pytest.raises(ConfigError, match=name):
        PoolsConfig(**{name: 0})


@pytest.mark.parametrize("name", ["gpu", "decode/gpu/2", "/gpu", "decode/"])
def test_a_deployment_is_named_with_its_flow(name: str):
    with pytest.raises(ConfigError, match="names no deployment"):
        PoolsConfig(decode_deployment=name)


def test_a_misspelt_setting_is_refused():
    with pytest.raises(ValidationError, match="max_decode_run"):
        TypeAdapter(PoolsConfig).validate_python({"max_decode_run": 3})


def test_every_setting_is_described():
    described = PoolsConfig.__doc__ or ""
    assert [name for name in PoolsConfig.__slots__ if f"        {name}: " not in described] == []
