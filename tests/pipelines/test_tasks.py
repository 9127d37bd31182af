import asyncio
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from prefect.client.schemas.objects import State, StateType
from prefect.states import Failed

from dgasr.errors import AudioError, ConfigError, IntegrityError, TransientError
from pipelines.child_runs import ChildState
from pipelines.prefect_runs import NAMED_STATES
from pipelines.tasks import ended, in_thread, is_transient


def end_of(error: Exception | None) -> State:
    async def work() -> str:
        if error is not None:
            raise error
        return "8 shards"

    return asyncio.run(ended(work()))


@pytest.mark.parametrize(
    ("error", "type_", "name", "expected"),
    [
        (None, StateType.COMPLETED, "Completed", None),
        (ConfigError("no such model"), StateType.FAILED, "Refused", ChildState.REFUSED),
        (IntegrityError("two digests"), StateType.FAILED, "Contradicted", ChildState.CONTRADICTED),
        (TransientError("no answer"), StateType.FAILED, "Failed", None),
    ],
)
def test_the_state_of_a_child_run_says_in_its_name_who_can_help(error, type_, name, expected):
    state = end_of(error)
    assert (state.type, state.name, state.message) == (type_, name, str(error or "8 shards"))
    assert NAMED_STATES.get(state.name) == expected


def test_an_error_that_nobody_foresaw_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        end_of(ZeroDivisionError())


def test_work_in_a_thread_gives_its_result_and_its_error():
    assert asyncio.run(in_thread(divmod, 7, 2)) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(in_thread(divmod, 7, 0))


def test_a_run_that_is_cancelled_does_not_wait_for_its_thread():
    begun, stuck = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        stuck.wait()

    async def cancel() -> None:
        task = asyncio.create_task(in_thread(work))
        await asyncio.to_thread(begun.wait)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel())
    stuck.set()


PROCESS_OF_A_RUN = """
import asyncio, signal, threading
from concurrent.futures import ThreadPoolExecutor
from pipelines import tasks
from pipelines.tasks import ended, in_thread

tasks.EXIT_S = 0.5

class Told(BaseException):
    pass

def tell(*_):
    raise Told  # as Prefect does

def stuck():
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()

def work():
    print("begun", flush=True)
    threading.Event().wait()

signal.signal(signal.SIGTERM, tell)
try:
    asyncio.run(ended(in_thread(stuck)))
except Told:
    pass
"""


def test_the_process_of_a_run_told_to_end_does_not_wait_for_stuck_work():
    environment = os.environ | {"PREFECT__FLOW_RUN_ID": "run"}
    command = [sys.executable, "-c", PROCESS_OF_A_RUN]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        told_at = time.monotonic()
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(timeout=25) == 0
            assert time.monotonic() - told_at >= 0.5  # Prefect had its time
        finally:
            process.kill()


def test_a_child_run_begins_without_what_only_its_parent_needs():
    program = "import sys, pipelines.children; print({'torch', 'duckdb', 'librosa'} & set(sys.modules))"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("error", "is_retried"),
    [
        (TransientError("x"), True),
        *((kind("x"), False) for kind in (ConfigError, IntegrityError, AudioError, ValueError)),
    ],
)
def test_storage_that_may_work_next_time_is_retried_and_nothing_else(error: Exception, is_retried: bool):
    assert is_transient(None, None, Failed(data=error)) is is_retried
