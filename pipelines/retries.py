"""What the flows retry: storage and devices that may work next time, and nothing else."""

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from dgasr.errors import TransientError


def is_transient(task: Task[Any, Any], run: TaskRun, state: State) -> bool:
    """Say whether a failed task may be tried again; Prefect hands the error over as the state's data."""
    return isinstance(state.data, TransientError)


storage_task = task(
    retries=3, retry_delay_seconds=[2, 10, 60], retry_jitter_factor=0.5, retry_condition_fn=is_transient,
    persist_result=False, cache_policy=NO_CACHE,
)  # fmt: skip
"""Makes a task that is tried again when storage fails in a way that may pass; its small result stays in memory."""
