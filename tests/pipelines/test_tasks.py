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


def test_a_child_run_that_did_its_work_says_so_in_one_line():
    state = end_of(None)
    assert (state.type, state.message) == (StateType.COMPLETED, "8 shards")


@pytest.mark.parametrize(
    ("error", "expected"),
    [(ConfigError("no such model"), ChildState.REFUSED), (IntegrityError("two digests"), ChildState.CONTRADICTED)],
)
def test_a_child_run_that_only_a_person_can_help_says_so_in_its_states_name(error: Exception, expected: ChildState):
    state = end_of(error)
    assert (state.type, state.message) == (StateType.FAILED, str(error))
    assert NAMED_STATES[state.name] == expected


def test_a_child_run_that_may_do_better_next_time_has_only_failed():
    state = end_of(TransientError("no answer"))
    assert (state.type, state.name, state.message) == (StateType.FAILED, "Failed", "no answer")


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


def test_storage_that_may_work_next_time_is_retried():
    assert is_transient(None, None, Failed(data=TransientError("no answer")))


@pytest.mark.parametrize("error", [ConfigError("x"), IntegrityError("x"), AudioError("x"), ValueError("x")])
def test_nothing_else_is(error: Exception):
    assert not is_transient(None, None, Failed(data=error))
