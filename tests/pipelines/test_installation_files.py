"""The files that an installation is made from: pools, automations, the Kubernetes job; and who is started how."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from prefect.events.schemas.automations import AutomationCore
from prefect.server.schemas.actions import WorkPoolCreate
from prefect.settings import Settings
from prefect.utilities.templating import apply_values
from prefect.workers.process import ProcessJobConfiguration

from pipelines import SERVER, WORKER, complete, start
from pipelines.deploy import AUTOMATIONS, DEPLOYMENTS, job_template

TEMPLATE = Path(start.__file__).parent / "kubernetes" / "gpu.json"


def test_a_kubernetes_job_is_one_that_a_server_takes_with_one_gpu_a_secret_and_a_workers_environment():
    template = yaml.safe_load(TEMPLATE.read_text())
    pool = WorkPoolCreate(name="gpu", type="kubernetes", base_job_template=template)
    assert pool.base_job_template["job_configuration"]["job_manifest"]["kind"] == "Job"
    # The job as a worker makes it where nobody overrides anything.
    properties = template["variables"]["properties"]
    values = {name: variable["default"] for name, variable in properties.items() if "default" in variable}
    job = apply_values(template["job_configuration"], values)["job_manifest"]
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    for side in ("limits", "requests"):
        assert container["resources"][side]["nvidia.com/gpu"] == 1
    assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert (pod["restartPolicy"], job["spec"]["backoffLimit"]) == ("Never", 0)  # never behind Prefect's back
    assert container["envFrom"][0]["secretRef"]["name"] == "dgasr-store"
    assert not {name for name in container["env"] if "SECRET" in name or "KEY" in name}
    assert WORKER.items() <= container["env"].items()
    assert container["env"]["OMP_NUM_THREADS"] == container["resources"]["requests"]["cpu"]


@pytest.mark.parametrize("wanted", [SERVER, WORKER], ids=["server", "worker"])
def test_prefect_knows_every_setting_that_it_is_given(wanted: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    names = {name for name in wanted if name.startswith("PREFECT_")}
    for name in names:
        monkeypatch.setenv(name, wanted[name])
    assert names <= set(Settings().to_environment_variables(exclude_unset=True))


def test_prefect_is_installed_with_a_fastapi_that_its_server_starts_with():
    root = Path(start.__file__).parents[1]
    pins = dict(line.split("==") for line in (root / "requirements.lock").read_text().splitlines() if "==" in line)
    wanted = tomllib.loads((root / "pyproject.toml").read_text())["project"]["dependencies"]
    (bound,) = (Requirement(line).specifier for line in wanted if line.startswith("fastapi"))
    assert pins["prefect"] == "3.8.8", "if this one starts with a later fastapi, take out its bound, and this test"
    assert pins["fastapi"] in bound
    assert "0.151" not in bound


def test_a_variable_that_someone_set_is_kept():
    assert complete({"DO_NOT_TRACK": "0", "HOME": "/"}, {"DO_NOT_TRACK": "1"}) == {"DO_NOT_TRACK": "0", "HOME": "/"}


def test_automations_are_ones_that_prefect_takes_and_wait_for_three_heartbeats_of_runs_that_have_not_ended():
    rows = yaml.safe_load(AUTOMATIONS.read_text())
    crashed, pending, alert = map(AutomationCore.model_validate, rows)
    assert (crashed.enabled, pending.enabled, alert.enabled) == (True, True, False)
    assert crashed.trigger.within.total_seconds() == 3 * int(WORKER["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
    ends = ("Completed", "Failed", "Crashed", "Cancelled", "Refused", "Contradicted")
    assert {f"prefect.flow-run.{end}" for end in ends} <= crashed.trigger.expect
    tags = {tag for deployment in yaml.safe_load(DEPLOYMENTS.read_text())["deployments"] for tag in deployment["tags"]}
    asked = {row["trigger"]["match_related"]["prefect.resource.id"].removeprefix("prefect.tag.") for row in rows}
    assert asked <= tags


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["server", "--port", "4300"], "server start --host 127.0.0.1 --port 4300"),
        (["gpu"], "worker start --pool gpu --type process --limit 1"),
        (["control"], "worker start --pool control --type process --limit 10"),
        (["cpu", "--limit", "2", "--name", "a"], "worker start --pool cpu --type process --limit 2 --name a"),
    ],
)
def test_a_process_becomes_prefects_server_or_worker(
    arguments: list[str], command: str, monkeypatch: pytest.MonkeyPatch
):
    become: list[Any] = []
    monkeypatch.setattr(os, "execve", lambda *call: become.extend(call))
    start.main(arguments)
    assert become[0] == sys.executable
    assert become[1][1:] == ["-m", "prefect", *command.split()]
    assert become[2]["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert shutil.which("python3", path=become[2]["PATH"]) == str(Path(sys.executable).with_name("python3"))


def test_a_flow_run_is_the_first_process_that_a_worker_starts_for_it():
    template = job_template()
    values = {name: row["default"] for name, row in template["variables"]["properties"].items() if "default" in row}
    made = ProcessJobConfiguration(**apply_values(template["job_configuration"], values))
    assert made.command == "python3 -m prefect.engine"


def test_log_lines_are_json_where_one_variable_says_so(tmp_path: Path):
    program = """
from prefect.logging.configuration import setup_logging
import logging, pipelines
setup_logging()
logging.getLogger("dgasr.stages.decode").info("shard done")
"""
    environment = WORKER | {
        "PREFECT_HOME": str(tmp_path), "PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER": "json", "PATH": os.environ["PATH"],
    }  # fmt: skip
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    line = next(line for line in ended.stderr.splitlines() if line.startswith("{"))
    row = yaml.safe_load(line)
    assert (row["name"], row["levelname"], row["msg"]) == ("dgasr.stages.decode", "INFO", "shard done")
