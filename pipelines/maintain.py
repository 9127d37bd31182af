"""The flow `maintain`: a lake checked, its small parts merged, and what nobody needs removed. Safe beside runs.

Where the check finds a fault nothing is changed: what lies around may be what the lake can be mended with.
"""

import logging
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact
from prefect.states import Completed, Failed

from dgasr.lake.check import Inspection, check_lake
from dgasr.lake.location import lake_uri_of
from dgasr.lake.upkeep import GRACE_S, Compaction, Vacuum, compact, vacuum
from dgasr.tables import markdown_table
from pipelines.tasks import storage_task

REPORTED_FINDINGS = 100
"""Rows of the artifact that lists what is wrong; `dgasr lake check --all` writes all of it."""


@flow(name="maintain", persist_result=False)
async def maintain(lake: str, grace_s: float = GRACE_S, deep: bool = False) -> Any:
    """Check a lake, merge its small parts, and remove what nobody needs any more.

    Args:
        lake: folder or `s3://bucket/prefix` of the lake.
        grace_s: how long nothing goes that a reader or a writer may still need, s.
        deep: whether the check reads all bytes too.

    Returns:
        What was found and done, in a few words each. The run fails where the lake has a fault.
    """
    lake_uri = lake_uri_of(lake)
    found = await check(lake_uri, deep)
    lines = {"check": found.line()}
    if not found.num_faults:
        lines["compact"] = (await merge(lake_uri)).line()
        lines["vacuum"] = (await clean(lake_uri, grace_s)).line()
    await acreate_markdown_artifact(
        markdown_table(("what", "outcome"), list(lines.items())), key="maintain-lake", description=found.line()
    )
    table = [
        {name: getattr(finding, name) for name in ("severity", "kind", "where", "what", "advice")}
        for finding in found.findings[:REPORTED_FINDINGS]
    ]
    await acreate_table_artifact(table, key="maintain-findings", description="what is wrong, and what to do")
    if found.num_faults:
        return Failed(message=f"{found.line()}. `dgasr lake check --lake {lake_uri}` says what to do.", data=lines)
    return Completed(message="; ".join(lines.values()), data=lines)


@storage_task
def check(lake_uri: str, deep: bool) -> Inspection:
    """Look for everything that must not be in the lake."""
    found = check_lake(lake_uri, is_deep=deep)
    for finding in found.findings[:REPORTED_FINDINGS]:
        get_run_logger().log(logging.WARNING if finding.severity == "fault" else logging.INFO, finding.line())
    return found


@storage_task
def merge(lake_uri: str) -> Compaction:
    """Merge the small parts of each partition."""
    done = compact(lake_uri)
    get_run_logger().info(done.line())
    return done


@storage_task
def clean(lake_uri: str, grace_s: float) -> Vacuum:
    """Remove what nobody needs any more."""
    done = vacuum(lake_uri, grace_s)
    get_run_logger().info(done.line())
    return done
