"""The GPU job as Prefect's Kubernetes worker would hand it to a cluster; skipped where that worker is not installed."""

import asyncio
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
import yaml
from prefect.client.schemas.objects import FlowRun

from pipelines import WORKER
from pipelines.deploy import DEPLOYMENTS
from tests.pipelines.test_installation_files import TEMPLATE

worker = pytest.importorskip(
    "prefect_kubernetes.worker", reason="prefect-kubernetes is only installed where workers start Kubernetes jobs"
)

RUN = FlowRun(id=UUID(int=7), name="20261122T000000-decode-00000-1", flow_id=UUID(int=1), deployment_id=UUID(int=2))


def job_of(variables: dict[str, Any]) -> dict[str, Any]:
    """Make the job of a flow run as the worker does; `variables` are those of its deployment."""
    template = yaml.safe_load(TEMPLATE.read_text())
    nobody: Any = SimpleNamespace()  # without a client Prefect would start a server to ask nothing of it
    made = worker.KubernetesWorkerJobConfiguration.from_template_and_values(template, variables, client=nobody)
    configuration = asyncio.run(made)
    configuration.prepare_for_flow_run(RUN, worker_name="w")
    return configuration.job_manifest


@pytest.fixture(scope="module")
def pod() -> dict[str, Any]:
    """The pod of a decode run as it is deployed."""
    (gpu,) = [row for row in yaml.safe_load(DEPLOYMENTS.read_text())["deployments"] if row["name"] == "gpu"]
    return job_of(gpu["work_pool"].get("job_variables", {}))["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def container(pod: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod["containers"]
    return container


def test_a_job_asks_for_one_gpu_and_nothing_is_left_to_fill_in(pod: dict[str, Any], container: dict[str, Any]):
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container["resources"]["requests"]["nvidia.com/gpu"] == 1
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert "{{" not in yaml.safe_dump(pod)


def test_a_job_runs_prefects_command_in_the_image_of_this_package(container: dict[str, Any]):
    assert container["image"] == "registry.example/dgasr:latest"
    assert container["args"] == ["prefect", "flow-run", "execute"]


def test_a_job_has_the_workers_environment_its_flow_run_and_as_many_threads_as_cores(container: dict[str, Any]):
    environment = {row["name"]: row["value"] for row in container["env"]}
    assert WORKER.items() <= environment.items()
    assert environment["PREFECT__FLOW_RUN_ID"] == str(RUN.id)
    assert environment["OMP_NUM_THREADS"] == container["resources"]["requests"]["cpu"]


def test_a_deployment_that_sets_a_variable_keeps_those_of_the_pool():
    (container,) = job_of({"env": {"OMP_NUM_THREADS": "1"}})["spec"]["template"]["spec"]["containers"]
    environment = {row["name"]: row["value"] for row in container["env"]}
    assert environment["OMP_NUM_THREADS"] == "1"
    assert WORKER.items() <= environment.items()


def test_a_pod_that_is_evicted_leaves_its_run_to_be_taken_up_again(container: dict[str, Any]):
    environment = {row["name"]: row["value"] for row in container["env"]}
    assert environment["PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"] == "reschedule"
