"""What the flows retry: storage and devices that may work next time, and nothing else."""

from typing import Any

from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from dgasr.errors import TransientError


def is_transient(task: Task[Any, Any], run: TaskRun, state: State) -> bool:
    """Say whether a failed task may be tried again; Prefect hands the error over as the state's data."""
    return isinstance(state.data, TransientError)
