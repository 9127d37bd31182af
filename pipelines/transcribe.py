"""The flows `transcribe`, of all that lies at a source, and `backfill`, of a selection that may also only be counted.

The stages do the work; Prefect drives them. Only URIs and small values pass between runs and tasks. A child run handles
an assignment of many shards, never a file. Where the work is done, and that a daily run comes first, is said by the
deployment's pools and queues.
"""

import asyncio
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import httpx
from prefect import flow, get_run_logger
from prefect.artifacts import acreate_markdown_artifact
from prefect.deployments import arun_deployment
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed

from dgasr.errors import ConfigError
from dgasr.stages.discover import whole_uri
from dgasr.stages.engine import EngineConfig
from dgasr.stages.plan import ShardConfig
from dgasr.stages.selection import Forecast, Selection, find_backlog, forecast
from dgasr.tables import markdown_table
from pipelines.request import PoolsConfig, RunRequest, new_request
from pipelines.run import carry_out
from pipelines.tasks import in_thread

DEPLOYMENT = "backfill/archive"


@flow(name="transcribe", persist_result=False)
async def transcribe(
    source: str | list[str], lake: str, engine: EngineConfig, shard: ShardConfig, pools: PoolsConfig
) -> Any:
    """Transcribe every recording under `source` that the lake does not hold for this recipe.

    Args:
        source: file, folder or `s3://bucket/prefix`, or several of them.
        lake: folder or `s3://bucket/prefix` of the lake.
        engine: which model transcribes, and how.
        shard: how much is committed at once.
        pools: where the work is done: in this process, or on the work pools.

    Returns:
        What the run did, the fields of `RunSummary`.
    """
    sources = (source,) if isinstance(source, str) else tuple(source)
    summary = await carry_out(new_request(Selection(sources=sources), lake, engine, shard, pools))
    return Completed(message=summary.line(), data=asdict(summary))


@flow(name="backfill", persist_result=False)
async def backfill(
    selection: Selection,
    lake: str,
    engine: EngineConfig,
    shard: ShardConfig,
    pools: PoolsConfig,
    dry_run: bool = False,
) -> Any:
    """Transcribe the recordings of a selection that the lake does not hold for this recipe, or holds and is to redo.

    Args:
        selection: which recordings, and which of them again.
        lake: folder or `s3://bucket/prefix` of the lake.
        engine: which model transcribes, and how.
        shard: how much is committed at once.
        pools: where the work is done: in this process, or on the work pools.
        dry_run: only count, and say what it would take and cost; touches nothing.

    Returns:
        What the run did, the fields of `RunSummary`; of a dry run, the fields of `Forecast`.
    """
    # The same for every attempt of this flow run: what an attempt has redone, the next one leaves alone.
    selection = selection.starting_at(flow_run.scheduled_start_time or datetime.now(UTC))
    if selection.redo_before is not None:
        again = selection.redo_before.isoformat()
        get_run_logger().info("transcribed before %s: again. If stopped, go on with redo_before=%s", again, again)
    request = new_request(selection, lake, engine, shard, pools)
    if dry_run:
        found = await in_thread(_forecast, request)
        await acreate_markdown_artifact(
            markdown_table(("what", "value"), found.rows()), key="backfill-forecast", description=found.line()
        )
        return Completed(message=f"dry run: {found.line()}", data=asdict(found))
    summary = await carry_out(request)
    return Completed(message=summary.line(), data=asdict(summary))


def submit(selection: Selection, lake_uri: str, engine: EngineConfig | None) -> str:
    """Hand a backfill to the deployment of the server that PREFECT_API_URL names, and do not wait for it.

    Folders and lists must lie at the same path on the workers. Without an engine the deployment's own is taken. Returns
    lines for a person; ConfigError where there is no server, or no such deployment on it.
    """
    server = PREFECT_API_URL.value()
    if not server:
        raise ConfigError("--pools: PREFECT_API_URL names no server. Set it, for example http://127.0.0.1:4200/api.")
    selection = replace(
        selection,
        sources=tuple(map(whole_uri, selection.sources)),
        uri_list=None if selection.uri_list is None else whole_uri(selection.uri_list),
    )
    parameters = {"selection": selection, "lake": lake_uri} | ({} if engine is None else {"engine": engine})
    try:
        started = asyncio.run(arun_deployment(DEPLOYMENT, parameters=parameters, timeout=0, as_subflow=False))
    except ObjectNotFound as error:
        raise ConfigError(f"{DEPLOYMENT}: no such deployment on {server}. Run `make deploy` against it.") from error
    except httpx.TransportError as error:
        raise ConfigError(f"{server}: no Prefect server answers ({error!r}). Check PREFECT_API_URL.") from error
    return (
        f"{started.name} ({started.id}) waits for a worker on {server}\n"
        f"engine: {started.parameters.get('engine')}\n"
        f"stop it: prefect flow-run cancel {started.id}\n"
    )


def _forecast(request: RunRequest) -> Forecast:
    backlog = find_backlog(request.selection, request.lake_uri, request.recipe.recipe_id)
    return forecast(backlog, request.lake_uri, request.recipe.recipe_id, request.pools.gpu_hour_price)
