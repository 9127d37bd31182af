"""The flow `transcribe`: an archive's recordings in, the lake's rows out. The stages do the work; Prefect drives them.

Only URIs and small values pass between runs and tasks. A child run handles an assignment of many shards, never a file.
"""

from dataclasses import asdict
from typing import Any

from prefect import flow
from prefect.states import Completed

from dgasr.stages.engine import EngineConfig
from dgasr.stages.plan import ShardConfig
from dgasr.stages.selection import Selection
from pipelines.request import PoolsConfig, new_request
from pipelines.run import carry_out


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
