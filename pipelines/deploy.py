"""`python -m pipelines.deploy`: work pools, queues, deployments and automations on Prefect's server, as the files say.

Doing it again changes nothing but what changed in `pools.yaml`, `automations.yaml` and `prefect.yaml`.
"""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import yaml
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

ROOT = Path(__file__).parents[1]
POOLS = ROOT / "pipelines" / "pools.yaml"
AUTOMATIONS = ROOT / "pipelines" / "automations.yaml"
DEPLOYMENTS = ROOT / "prefect.yaml"

COMMAND = "python3 -m prefect.engine"
"""What a worker of a process pool starts for a flow run. Said outright, it is started at once; otherwise Prefect starts
a process before it that fetches code, and one after it that runs hooks, and there is nothing to fetch and no hook."""


async def deploy() -> None:
    """Bring the server up to date with the files; raises where it does not answer."""
    async with get_client() as client:
        for pool in yaml.safe_load(POOLS.read_text()):
            await _put_pool(client, pool)
        for automation in yaml.safe_load(AUTOMATIONS.read_text()):
            await _put_automation(client, AutomationCore.model_validate(automation))


async def _put_pool(client: PrefectClient, wanted: dict[str, Any]) -> None:
    """Make a pool of processes, or say anew what one is for; its type, job template and limits stay as they are."""
    try:
        pool = await client.read_work_pool(wanted["name"])
        await client.update_work_pool(pool.name, WorkPoolUpdate(description=wanted["description"]))
    except ObjectNotFound:
        await client.create_work_pool(
            WorkPoolCreate(
                name=wanted["name"], description=wanted["description"], type="process", base_job_template=job_template()
            )
        )
    for queue in wanted["queues"]:
        await _put_queue(client, wanted["name"], queue)


def job_template() -> dict[str, Any]:
    """Make the job template of a process pool."""
    template = ProcessWorker.get_default_base_job_template()
    template["variables"]["properties"]["command"]["default"] = COMMAND
    return template


async def _put_queue(client: PrefectClient, pool: str, wanted: dict[str, Any]) -> None:
    try:
        queue = await client.read_work_queue_by_name(wanted["name"], work_pool_name=pool)
    except ObjectNotFound:
        queue = await client.create_work_queue(wanted["name"], work_pool_name=pool, priority=wanted["priority"])
    await client.update_work_queue(queue.id, description=wanted["description"], priority=wanted["priority"])


async def _put_automation(client: PrefectClient, wanted: AutomationCore) -> None:
    """Make an automation, or replace the one of its name; whether it is switched on stays as someone left it."""
    found = await client.read_automations_by_name(wanted.name)
    if not found:
        await client.create_automation(wanted)
    for automation in found:
        await client.update_automation(automation.id, wanted.model_copy(update={"enabled": automation.enabled}))


def main() -> int:
    """Do it, then let Prefect's own command put up the deployments."""
    try:
        asyncio.run(deploy())
    except httpx.TransportError as error:
        sys.stderr.write(f"Prefect's server does not answer ({error!r}). Start it with `make server`, and let ")
        sys.stderr.write("PREFECT_API_URL name it (http://127.0.0.1:4200/api where it runs on this machine).\n")
        return 1
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(DEPLOYMENTS)]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
