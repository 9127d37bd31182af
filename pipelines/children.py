"""What both kinds of child runs share: how their work is run, and how they say in what way it ended."""

import asyncio
import contextvars
import os
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, ParamSpec, TypeVar

from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from dgasr.errors import ConfigError, IntegrityError, TransientError
from pipelines.dispatch import Condition

P = ParamSpec("P")
Result = TypeVar("Result")

LEAVE_S = 5.0
"""How long the process of a child run that was told to end may take to close Prefect's logs and state, s."""


async def ended(work: Awaitable[str]) -> State[Any]:
    """Wait for a child run's work, and turn its end into the state that its parent understands.

    Args:
        work: what is to be done; its result is one line for a person.

    Returns:
        Completed, or Failed under a name that says who has to act. Errors that are none of ours are raised.
    """
    try:
        return Completed(message=await work)
    except ConfigError as error:
        return Failed(name=Condition.REFUSED.value.capitalize(), message=str(error))
    except IntegrityError as error:
        return Failed(name=Condition.CONTRADICTED.value.capitalize(), message=str(error))
    except TransientError as error:
        return Failed(message=str(error))
    except Exception:
        raise
    except BaseException:  # told to end: cancelled, or its worker is stopped
        if "PREFECT__FLOW_RUN_ID" in os.environ:  # a worker started this process for this run and nothing else
            threading.Thread(target=_leave, name="leave", daemon=True).start()
        raise


def _leave() -> None:
    """End this process, whatever its threads wait for.

    Python would wait for every pool of threads or processes, and abandoned work goes on in them: for a pool whose
    processes had the same signal, with new ones, until the worker kills all of it after 30 s. Commits are atomic, and
    spawned processes end with this one.
    """
    time.sleep(LEAVE_S)
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
