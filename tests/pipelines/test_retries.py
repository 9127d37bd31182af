import pytest
from prefect.states import Failed

from dgasr.errors import AudioError, ConfigError, IntegrityError, TransientError
from pipelines.retries import is_transient


def test_storage_that_may_work_next_time_is_retried():
    assert is_transient(None, None, Failed(data=TransientError("no answer")))


@pytest.mark.parametrize("error", [ConfigError("x"), IntegrityError("x"), AudioError("x"), ValueError("x")])
def test_nothing_else_is(error: Exception):
    assert not is_transient(None, None, Failed(data=error))
