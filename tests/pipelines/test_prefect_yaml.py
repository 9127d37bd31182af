import importlib.util
import inspect
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

ROOT = Path(__file__).parents[2]
DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]


def flow_of(deployment: dict):
    path, name = deployment["entrypoint"].split(":")
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_an_entrypoint_takes_the_parameters_that_it_is_given(deployment: dict):
    flow = flow_of(deployment)
    inspect.signature(flow.fn).bind(**deployment["parameters"])
    flow.validate_parameters(deployment["parameters"])


def test_a_misspelt_setting_is_refused():
    from dgasr.stages.engine_config import EngineConfig

    with pytest.raises(ValidationError, match="max_stepz"):
        TypeAdapter(EngineConfig).validate_python({"max_stepz": 8})


def test_telemetry_is_off_for_whoever_imports_the_flows():
    import os

    import pipelines  # noqa: F401

    assert os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert os.environ["DO_NOT_TRACK"] == "1"
