"""What the flows share: what is retried, work in a thread, and how a child run says in what way it ended."""

import asyncio
import contextvars
import inspect
import os
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Completed, Failed
from prefect.tasks import Task

from dgasr.errors import ConfigError, IntegrityError, TransientError

P = ParamSpec("P")
Result = TypeVar("Result")


def is_transient(task: Task[Any, Any], run: TaskRun, state: State) -> bool:
    """Say whether a failed task may be tried again; Prefect hands the error over as the state's data."""
    return isinstance(state.data, TransientError)


REFUSED, CONTRADICTED = "Refused", "Contradicted"
"""Names of failed states with which a child run says who has to act: a person in both cases, whatever is retried."""

EXIT_S = 5.0
"""How long the process of a child run that was told to end may take to close Prefect's logs and state, s."""


async def ended(work: Awaitable[str]) -> State[Any]:
    """Wait for a child run's work, whose result is a line for a person, and turn its end into a state for its parent.

    Completed, or Failed under a name that says who has to act. Errors that are none of ours are raised.
    """
    try:
        return Completed(message=await work)
    except ConfigError as error:
        return Failed(name=REFUSED, message=str(error))
    except IntegrityError as error:
        return Failed(name=CONTRADICTED, message=str(error))
    except TransientError as error:
        return Failed(message=str(error))
    except Exception:
        raise
    except BaseException:  # told to end: cancelled, or its worker is stopped
        if "PREFECT__FLOW_RUN_ID" in os.environ:  # a worker started this process for this run and nothing else
            threading.Thread(target=_exit_soon, name="exit", daemon=True).start()
        raise


def _exit_soon() -> None:
    """End this process, whatever its threads wait for.

    Python would wait for every pool of threads or processes, and abandoned work goes on in them: for a pool whose
    processes had the same signal, with new ones, until the worker kills all of it after 30 s. Commits are atomic, and
    spawned processes end with this one.
    """
    time.sleep(EXIT_S)
    os._exit(0)  # as Prefect does it: the worker, not the exit code, says that the run was cancelled


async def in_thread(function: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
    """Run a function in a thread that the process does not wait for when it is told to end.

    `asyncio.to_thread` would be waited for: a cancelled run would go on until its assignment is done.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()
    call = partial(contextvars.copy_context().run, partial(function, *args, **kwargs))

    def settle(result: Result | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]
        else:
            future.set_exception(error)

    def work() -> None:
        try:
            outcome: tuple[Any, BaseException | None] = (call(), None)
        except BaseException as error:
            outcome = (None, error)
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=work, name=getattr(function, "__name__", "work"), daemon=True).start()
    return await future


def storage_task(function: Callable[P, Any]) -> Callable[P, Any]:
    """Make a task of a coroutine, or of a plain function, which then works in a thread.

    It is tried again when storage fails in a way that may pass; its small result stays in memory.
    """
    is_coroutine = inspect.iscoroutinefunction(function)

    @task(
        retries=3, retry_delay_seconds=[2, 10, 60], retry_jitter_factor=0.5, retry_condition_fn=is_transient,
        persist_result=False, cache_policy=NO_CACHE,
    )  # fmt: skip
    @wraps(function)
    async def work(*args: P.args, **kwargs: P.kwargs) -> Any:
        return await (function(*args, **kwargs) if is_coroutine else in_thread(function, *args, **kwargs))

    return work
