import importlib
import inspect

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

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
def test_an_entrypoint_takes_the_parameters_that_it_is_given(deployment: dict):
    flow = flow_of(deployment)
    signature = inspect.signature(flow.fn)
    if name_of(deployment) in CHILDREN:
        signature.bind_partial(**deployment["parameters"])
    else:
        signature.bind(**deployment["parameters"])
        flow.validate_parameters(deployment["parameters"])


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_a_flow_is_a_coroutine_and_keeps_no_result_on_the_workers_disk(deployment: dict):
    flow = flow_of(deployment)
    assert (flow.isasync, flow.persist_result) == (True, False)


def test_a_run_that_finds_another_one_at_work_waits():
    # CANCEL_NEW beside a worker's limit leaves runs Late for ever (Prefect #16984).
    limits = [deployment["concurrency_limit"] for deployment in DEPLOYMENTS if deployment.get("schedules")]
    assert limits
    assert all(limit == {"limit": 1, "collision_strategy": "ENQUEUE"} for limit in limits)


def test_parents_look_for_their_children_where_they_are_deployed():
    pools = PoolsConfig()
    assert {pools.prepare_deployment, pools.decode_deployment} == CHILDREN <= {name_of(d) for d in DEPLOYMENTS}


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_a_deployment_waits_in_a_queue_that_is_made_says_what_it_is_for_and_is_tagged(deployment: dict):
    queues = {pool["name"]: {queue["name"] for queue in pool["queues"]} for pool in POOLS}
    assert deployment["work_pool"]["work_queue_name"] in queues[deployment["work_pool"]["name"]]
    assert deployment["description"]
    assert "dgasr" in deployment["tags"]


def test_a_child_finds_the_queue_of_its_parent_in_its_own_pool():
    asked = {d["parameters"]["pools"]["queue"] for d in DEPLOYMENTS if "pools" in d["parameters"]}
    assert asked == {"daily", "backfill"}
    assert all(asked <= {queue["name"] for queue in pool["queues"]} for pool in POOLS)


def test_the_daily_run_is_served_before_a_backfill_in_every_pool():
    for pool in POOLS:
        priority = {queue["name"]: queue["priority"] for queue in pool["queues"]}
        assert priority["daily"] < priority["backfill"]


def test_parents_wait_in_a_pool_that_no_child_uses():
    children = {d["work_pool"]["name"] for d in DEPLOYMENTS if name_of(d) in CHILDREN}
    parents = {d["work_pool"]["name"] for d in DEPLOYMENTS if "pools" in d["parameters"]}
    assert not parents & children


def test_a_misspelt_setting_is_refused():
    from dgasr.stages.engine import EngineConfig

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
