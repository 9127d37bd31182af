import importlib
import inspect

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from dgasr.errors import ConfigError
from dgasr.stages.engine import EngineConfig
from pipelines.deploy import DEPLOYMENTS as DEPLOYMENTS_FILE
from pipelines.deploy import POOLS as POOLS_FILE
from pipelines.request import PoolsConfig

DEPLOYMENTS = yaml.safe_load(DEPLOYMENTS_FILE.read_text())["deployments"]
POOLS = yaml.safe_load(POOLS_FILE.read_text())


CHILDREN = {"prepare/cpu", "decode/gpu"}
"""Deployments that are started by parents only, which know the rest of their parameters."""


def flow_of(deployment: dict):
    module, name = deployment["entrypoint"].rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


def name_of(deployment: dict) -> str:
    return f"{flow_of(deployment).name}/{deployment['name']}"


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_a_deployment_fits_its_flow_and_waits_in_a_queue_that_is_made(deployment: dict):
    flow = flow_of(deployment)
    signature = inspect.signature(flow.fn)
    if name_of(deployment) in CHILDREN:
        signature.bind_partial(**deployment["parameters"])
    else:
        signature.bind(**deployment["parameters"])
        flow.validate_parameters(deployment["parameters"])
    assert (flow.isasync, flow.persist_result) == (True, False)  # no result stays on the workers' disks
    queues = {pool["name"]: {queue["name"] for queue in pool["queues"]} for pool in POOLS}
    assert deployment["work_pool"]["work_queue_name"] in queues[deployment["work_pool"]["name"]]
    assert deployment["description"]
    assert "dgasr" in deployment["tags"]


def test_a_run_that_finds_another_one_at_work_waits():
    # CANCEL_NEW beside a worker's limit leaves runs Late for ever (Prefect #16984).
    limits = [deployment["concurrency_limit"] for deployment in DEPLOYMENTS if deployment.get("schedules")]
    assert limits
    assert all(limit == {"limit": 1, "collision_strategy": "ENQUEUE"} for limit in limits)


def test_parents_look_for_their_children_where_they_are_deployed():
    pools = PoolsConfig()
    assert {pools.prepare_deployment, pools.decode_deployment} == CHILDREN <= {name_of(d) for d in DEPLOYMENTS}


def test_queues_of_parents_are_in_every_pool_the_daily_one_first_and_parents_wait_where_no_child_does():
    asked = {d["parameters"]["pools"]["queue"] for d in DEPLOYMENTS if "pools" in d["parameters"]}
    assert asked == {"daily", "backfill"}
    for pool in POOLS:
        priority = {queue["name"]: queue["priority"] for queue in pool["queues"]}
        assert asked <= set(priority)
        assert priority["daily"] < priority["backfill"]
    children = {d["work_pool"]["name"] for d in DEPLOYMENTS if name_of(d) in CHILDREN}
    parents = {d["work_pool"]["name"] for d in DEPLOYMENTS if "pools" in d["parameters"]}
    assert not parents & children


def test_a_misspelt_setting_is_refused():
    with pytest.raises(ValidationError, match="max_decode_run"):
        TypeAdapter(PoolsConfig).validate_python({"max_decode_run": 3})
    reads = TypeAdapter(EngineConfig).validate_python
    with pytest.raises(ValidationError, match="max_stepz"):
        reads({"max_stepz": 8})
    with pytest.raises(ValidationError, match="max_speed"):
        reads({"limits": {"max_speed": 8}})
    asked = reads({"channels": 1, "track": "each", "limits": {"max_duration_s": 60}})
    assert (asked.channels, asked.track, asked.limits.max_duration_s) == (1, "each", 60)


def test_processes_that_read_side_by_side_have_one_thread_each():
    (cpu,) = [deployment for deployment in DEPLOYMENTS if deployment["name"] == "cpu"]
    assert cpu["work_pool"]["job_variables"]["env"] == {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        *(({name: 0}, name) for name in ("max_attempts", "poll_s", "max_staged_bytes", "prepare_processes")),
        *(({"decode_deployment": name}, "names no deployment") for name in ("gpu", "decode/gpu/2", "/gpu", "decode/")),
    ],
)
def test_a_setting_with_which_nothing_would_run_is_refused(setting: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        PoolsConfig(**setting)


def test_every_setting_is_described():
    described = PoolsConfig.__doc__ or ""
    assert [name for name in PoolsConfig.__slots__ if f"        {name}: " not in described] == []
